"""A judge's reviews: what to ask, what it will cost, and asking it within a budget. Resumable: every reply is on the
disk before the next question, and a question that has its verdict is never asked again.

Each call is written down before it is made (in FILE.asked), with the most it can cost. A call that was under way when
the process was killed is counted with that, so that dollars are never less than what was spent.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from evaluation import prompts, records, reviews, spending
from evaluation.endpoint import Endpoint, Message, Parameters, Refused, Reply, Unanswered, concurrently
from evaluation.errors import EvaluationError
from evaluation.journal import Journal, utc_now
from evaluation.records import Answer, Mode, Price, Question, QuestionId, Review
from evaluation.scores import read_review
from evaluation.sets import QuestionSet
from evaluation.verdicts import Unreadable, Verdict

_ASKED_TWICE = 2


class Duel(msgspec.Struct, frozen=True, kw_only=True):
    """Who is compared, about what."""

    asked: QuestionSet
    answers: dict[str, dict[QuestionId, Answer]]
    """By name; the baseline first."""
    mode: Mode
    swap: bool

    @property
    def names(self) -> tuple[str, str]:
        """Baseline and candidate."""
        baseline, candidate = self.answers
        return baseline, candidate


class Case(msgspec.Struct, frozen=True):
    """One request to the judge: a question, and who is shown in which order."""

    question: Question
    shown: tuple[str, ...]
    request: list[Message]

    @property
    def key(self) -> tuple[QuestionId, tuple[str, ...]]:
        """What it is about."""
        return self.question.question_id, self.shown


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was begun; a later line with the same id replaces it."""

    call_id: str
    question_id: QuestionId
    shown: list[str]
    attempt: int
    usd_at_most: float | None
    at: str


class Judged(msgspec.Struct, kw_only=True):
    """How it went. Dollars are of the whole file, calls that were lost included."""

    file: str
    baseline: str
    candidate: str
    cases: int
    """To be judged."""
    reviews: int
    """Replies in the file, second tries included."""
    new: int
    unreadable: int
    usd: float | None
    usd_lost_at_most: float | None
    """Of `usd`: calls under way when the process was killed, at the most they can have cost."""
    price_source: str


def check(duel: Duel) -> None:
    """Raises EvaluationError where an answer is missing or belongs to another question set."""
    for name, answers in duel.answers.items():
        missing = [each.question_id for each in duel.asked.questions if each.question_id not in answers]
        if missing:
            raise EvaluationError(
                f"{name} has no answer to questions {records.some(missing)}; complete them with: "
                f"vlaunch evaluate answer --name {name}"
            )
        for question in duel.asked.questions:
            answer = answers[question.question_id]
            if answer.question_set and answer.question_set != duel.asked.mark:
                raise EvaluationError(
                    f"{name} answered the question set {answer.question_set}, not {duel.asked.mark}; "
                    "give the same --questions."
                )
            if len(answer.says) != len(question.asks):
                raise EvaluationError(
                    f"{name} has {len(answer.says)} turns for question {question.question_id}, "
                    f"which has {len(question.asks)}."
                )


def cases(duel: Duel) -> Iterator[Case]:
    """Every request, in the order of the questions."""
    baseline, candidate = duel.names
    orders: tuple[tuple[str, ...], ...] = ((baseline, candidate), (candidate, baseline))
    if duel.mode == "single":
        orders = ((baseline,), (candidate,))
    elif not duel.swap:
        orders = orders[:1]
    for question in duel.asked.questions:
        for shown in orders:
            says = [duel.answers[name][question.question_id].says for name in shown]
            yield Case(question, shown, prompts.judge(question, says))


def remaining(path: Path, all_cases: list[Case], duel: Duel, judge: str) -> list[tuple[Case, list[Review]]]:
    """Cases without a verdict that may be asked (again), each with what was said before. Raises EvaluationError
    where the file's reviews are about something else."""
    said: dict[tuple[QuestionId, tuple[str, ...]], list[Review]] = {}
    for review in records.read(path, Review) if path.exists() and path.stat().st_size else []:
        about = (review.question_set, review.mode, review.judge, review.prompts)
        now = (duel.asked.mark, duel.mode, judge, prompts.VERSION)
        if about != now:
            raise EvaluationError(
                f"{path} holds reviews by {about[2]} ({about[1]}) of {about[0]}, not by {now[2]} ({now[1]}) of "
                f"{now[0]}, or under other instructions; give another --folder."
            )
        for name in review.shown:
            if review.answers.get(name) != duel.answers[name][review.question_id].answer_id:
                raise EvaluationError(f"{path} judged another answer of {name} to question {review.question_id}.")
        said.setdefault((review.question_id, tuple(review.shown)), []).append(review)
    found = []
    for case in all_cases:
        before = said.get(case.key, [])
        if len(before) < _ASKED_TWICE and not (before and isinstance(read_review(before[-1]), Verdict)):
            found.append((case, before))
    return found


def file(folder: Path, duel: Duel) -> Path:
    """Where the reviews of two models are."""
    name = reviews.file_name(*duel.names)
    return folder / "reviews" / (name if duel.mode == "pair" else f"single/{name}")


class Judge:
    """Asks one model for reviews and keeps them."""

    def __init__(
        self,
        endpoint: Endpoint,
        duel: Duel,
        *,
        path: Path,
        parameters: Parameters,
        price: Price | None,
        budget: float | None,
    ) -> None:
        self.endpoint, self.duel, self.path, self.parameters = endpoint, duel, path, parameters
        self.price, self.budget = price, budget
        self.lost_usd: float | None = None
        self.new = 0
        check(duel)

    def estimate(self) -> spending.Estimate:
        """What is still to be asked."""
        if self.path.exists():
            Journal(self.path).close()  # half a line of a killed writer is not a review
        todo = remaining(self.path, list(cases(self.duel)), self.duel, self.endpoint.model)
        return spending.estimate([case.request for case, _ in todo], self.parameters, self.price)

    def run(self, *, at_once: int, tell: Callable[[int, int], None]) -> Judged:
        """`judge` for who has no loop; the endpoint is closed afterwards."""

        async def whole() -> Judged:
            try:
                return await self.judge(at_once=at_once, tell=tell)
            finally:
                await self.endpoint.close()

        return asyncio.run(whole())

    async def judge(self, *, at_once: int, tell: Callable[[int, int], None]) -> Judged:
        """Ask what is not judged yet. Raises EvaluationError; what was judged before that is kept."""
        all_cases = list(cases(self.duel))
        refused: list[tuple[Case, Refused]] = []
        with Journal(self.path) as self.reviews, Journal(_asked(self.path)) as self.calls:
            todo = remaining(self.path, all_cases, self.duel, self.endpoint.model)
            spent = self._spent()
            self.purse = spending.Purse(self.budget, (spent or 0.0) + (self.lost_usd or 0.0))
            done = len(all_cases) - len(todo)

            async def one(item: tuple[Case, list[Review]]) -> None:
                nonlocal done
                try:
                    await self._settle_case(*item)
                except Refused as failure:
                    refused.append((item[0], failure))
                    return
                done += 1
                tell(done, len(all_cases))

            await concurrently(todo, one, at_once)
            if refused:
                ids = records.some([case.question.question_id for case, _ in refused])
                raise EvaluationError(f"Questions {ids} are not judged: {refused[0][1]} The others are in {self.path}.")
            self.new = len(todo)
        found = self.so_far()
        assert found is not None
        return found

    def runs(self) -> dict[str, str]:
        """The training run of each model, empty where it is not known."""
        return {name: next(iter(found.values())).run_id for name, found in self.duel.answers.items()}

    def so_far(self) -> Judged | None:
        """Where the file stands; None where nothing is judged yet."""
        if not self.path.exists() or not self.path.stat().st_size:
            return None
        kept = records.read(self.path, Review)
        usd = self._spent()
        last = {(review.question_id, tuple(review.shown)): review for review in kept}
        return Judged(
            file=str(self.path),
            baseline=self.duel.names[0],
            candidate=self.duel.names[1],
            cases=len(list(cases(self.duel))),
            reviews=len(kept),
            new=self.new,
            unreadable=sum(isinstance(read_review(review), Unreadable) for review in last.values()),
            usd=None if usd is None or self.lost_usd is None else usd + self.lost_usd,
            usd_lost_at_most=self.lost_usd,
            price_source=self.price.source if self.price else "unknown",
        )

    def _spent(self) -> float | None:
        """Dollars of the file's reviews; sets `lost_usd` to the most that calls without a review can have cost."""
        reviews = records.read(self.path, Review) if self.path.stat().st_size else []
        asked = _asked(self.path)
        lines = asked.read_bytes().splitlines() if asked.exists() else []
        begun = {each.call_id: each for each in (msgspec.json.decode(line, type=Asked) for line in lines)}
        for review in reviews:
            begun.pop(review.call_id, None)
        lost = [each.usd_at_most for each in begun.values()]
        self.lost_usd = None if any(usd is None for usd in lost) else sum(usd or 0.0 for usd in lost)
        known = all(review.usd is not None for review in reviews)
        return sum(review.usd or 0.0 for review in reviews) if known else None

    async def _settle_case(self, case: Case, before: list[Review]) -> None:
        """Ask, and once more where the reply cannot be read."""
        for attempt in range(len(before) + 1, _ASKED_TWICE + 1):
            request, parameters = case.request, self.parameters
            if before:
                request = prompts.again(case.request, before[-1].text, len(case.shown))
                if before[-1].cut:  # its scores may have been further on
                    request = case.request
                    parameters = msgspec.structs.replace(parameters, max_tokens=2 * parameters.max_tokens)
            review = await self._call(case, request, parameters, attempt)
            if isinstance(read_review(review), Verdict):
                return
            before = [*before, review]

    async def _call(self, case: Case, request: list[Message], parameters: Parameters, attempt: int) -> Review:
        most = spending.usd_at_most(request, parameters, self.price)
        call = Asked(
            call_id=uuid.uuid4().hex,
            question_id=case.question.question_id,
            shown=list(case.shown),
            attempt=attempt,
            usd_at_most=most,
            at=utc_now(),
        )
        await self.purse.set_aside(most or 0.0)
        cost = 0.0
        try:
            self.calls.append(call)
            try:
                reply = await self.endpoint.ask(request, parameters)
            except Unanswered:
                raise  # it may have been answered and charged on the other side
            except EvaluationError:
                # What the endpoint refused it does not charge.
                self.calls.append(msgspec.structs.replace(call, usd_at_most=0.0))
                raise
            review = self._review(case, call, reply, request, parameters)
            cost = review.usd or 0.0
            self.reviews.append(review)
        finally:
            await self.purse.settle(most or 0.0, cost)
        return review

    def _review(self, case: Case, call: Asked, reply: Reply, request: list[Message], parameters: Parameters) -> Review:
        usage = reply.usage or spending.tokens_at_most(request, parameters)
        answers = {name: self.duel.answers[name][case.question.question_id] for name in case.shown}
        review = Review(
            question_id=case.question.question_id,
            category=case.question.category,
            mode=self.duel.mode,
            baseline=self.duel.names[0],
            candidate=self.duel.names[1],
            shown=list(case.shown),
            text=reply.text,
            attempt=call.attempt,
            cut=reply.finish_reason == "length",
            judge=self.endpoint.model,
            prompts=prompts.VERSION,
            question_set=self.duel.asked.mark,
            runs={name: answer.run_id for name, answer in answers.items() if answer.run_id},
            answers={name: answer.answer_id for name, answer in answers.items()},
            call_id=call.call_id,
            usage=usage,
            price=self.price,
            usd=None if self.price is None else self.price.usd(usage.input_tokens, usage.output_tokens),
            at=utc_now(),
        )
        verdict = read_review(review)
        return msgspec.structs.replace(review, score=list(verdict.scores) if isinstance(verdict, Verdict) else None)


def _asked(path: Path) -> Path:
    return path.with_name(path.name + ".asked")
