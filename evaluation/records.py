"""Questions, answers and reviews as lines of JSON, ours and the published evaluation's, and how they are read.
What a line lacks is said with file and line; nothing is filled in.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from evaluation.errors import EvaluationError

QuestionId = int | str
Mode = Literal["pair", "single"]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question: `text`, or `turns` where it has more than one."""

    question_id: QuestionId
    category: str = ""
    text: str = ""
    turns: list[str] = []
    reference: str = ""
    """A right answer, for the judge of coding and math."""

    @property
    def asks(self) -> list[str]:
        """What the person says, turn by turn."""
        return self.turns or [self.text]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one call; `stated` is False where the endpoint did not say and the largest possible count stands in."""

    input_tokens: int
    output_tokens: int
    stated: bool = True


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model said to one question."""

    question_id: QuestionId
    text: str = ""
    """The answer, where there is one turn."""
    turns: list[str] = []
    """The answers, turn by turn, where there are more."""
    answer_id: str = ""
    name: str = ""
    """What the model is called in reviews."""
    model: str = ""
    """What the endpoint calls it."""
    run_id: str = ""
    """The training run it came from, where that is known."""
    question_set: str = ""
    parameters: dict[str, float | int | None] = {}
    finish_reasons: list[str] = []
    usage: Usage | None = None
    seconds: float | None = None
    at: str = ""

    @property
    def says(self) -> list[str]:
        """The model's turns."""
        return self.turns or [self.text]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge costs, and who says so."""

    usd_per_million_input: float
    usd_per_million_output: float
    source: str

    def usd(self, input_tokens: int, output_tokens: int) -> float:
        """Dollars of so many tokens."""
        return (input_tokens * self.usd_per_million_input + output_tokens * self.usd_per_million_output) / 1e6


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """One reply of a judge. A published review has `question_id`, `text` and `score` alone; then the baseline was
    shown first."""

    question_id: QuestionId
    text: str
    score: list[float] | None = None
    """In the order shown; null where the text could not be read."""
    category: str = ""
    mode: Mode = "pair"
    baseline: str = ""
    candidate: str = ""
    shown: list[str] = []
    """The names in the order in which the judge saw the answers; one where it saw one."""
    attempt: int = 1
    """2: asked again because the first reply could not be read."""
    cut: bool = False
    """The reply ended at a limit of tokens."""
    judge: str = ""
    prompts: str = ""
    """The version of the judge's instructions."""
    question_set: str = ""
    runs: dict[str, str] = {}
    """The training runs that the names came from, where known."""
    answers: dict[str, str] = {}
    """The id of the answer judged, by name."""
    answer1_id: str = ""
    answer2_id: str = ""
    """The same in published reviews, by the order shown."""
    call_id: str = ""
    usage: Usage | None = None
    price: Price | None = None
    usd: float | None = None
    at: str = ""


Line = TypeVar("Line", Question, Answer, Review)


def read(path: Path, kind: type[Line]) -> list[Line]:
    """Every line of a file. Raises EvaluationError, with file and line, where one is not of its kind."""
    try:
        raw = path.read_bytes()
    except OSError as failure:
        raise EvaluationError(f"{path} cannot be read: {failure.strerror}.") from failure
    decoder = msgspec.json.Decoder(kind)
    found: list[Line] = []
    for number, line in enumerate(raw.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as failure:
            raise EvaluationError(f"{path} line {number} is not {_ARTICLE[kind]}: {failure}.") from failure
    if not found:
        raise EvaluationError(f"{path} holds no {kind.__name__.lower()}.")
    return found


_ARTICLE: dict[type[msgspec.Struct], str] = {Question: "a question", Answer: "an answer", Review: "a review"}


def questions(path: Path) -> list[Question]:
    """The questions of a file. Raises EvaluationError for an id that comes twice or a question that asks nothing."""
    found = read(path, Question)
    refuse_twice([each.question_id for each in found], path)
    for each in found:
        if not all(ask.strip() for ask in each.asks):
            raise EvaluationError(f"Question {each.question_id} of {path} has no text.")
    return found


def answers(path: Path) -> dict[QuestionId, Answer]:
    """The answers of a file by question. Raises EvaluationError for a question that is answered twice."""
    found = read(path, Answer)
    refuse_twice([each.question_id for each in found], path)
    return {each.question_id: each for each in found}


def refuse_twice(ids: Iterable[QuestionId], where: object) -> None:
    """Raises EvaluationError where an id comes more than once."""
    seen: set[QuestionId] = set()
    for each in ids:
        if each in seen:
            raise EvaluationError(f"{where} has question {each} twice; which one counts cannot be known, remove one.")
        seen.add(each)


def some(ids: Sequence[QuestionId]) -> str:
    """Ids for a sentence, the first few of many."""
    shown = ", ".join(str(each) for each in ids[:8])
    return shown if len(ids) <= 8 else f"{shown} and {len(ids) - 8} more"
