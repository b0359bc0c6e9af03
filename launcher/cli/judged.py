"""Around `vlaunch evaluate judge`: whose answers, at which price, what is said before and after, and the ledger."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.judging import Duel, Judge, Judged
    from evaluation.records import Mode, Price
    from evaluation.sets import QuestionSet
    from evaluation.spending import Estimate


def duel(folder: Path, names: tuple[str, str], asked: "QuestionSet", mode: "Mode", swap: bool) -> "Duel":
    """The two models' answers, from the folder by name or from a file named in its place."""
    from evaluation import answering, records
    from evaluation.errors import EvaluationError
    from evaluation.judging import Duel

    answers = {}
    for given in names:
        path = Path(given) if given.endswith(".jsonl") else answering.file(folder, given)
        if not path.exists():
            raise EvaluationError(
                f"There are no answers of {given}: {path} does not exist; make them with: "
                f"vlaunch evaluate answer --model URL|RUN|PATH --name {given}"
            )
        name = path.stem.removeprefix("answer_")
        if name in answers:
            raise EvaluationError(f"{name} cannot be compared with itself.")
        answers[name] = records.answers(path)
    return Duel(asked=asked, answers=answers, mode=mode, swap=swap)


def price(model: str, given: tuple[float, float] | None) -> "Price | None":
    """What was given, else what the dated table says; None where neither knows."""
    from evaluation import spending
    from evaluation.records import Price

    if given is None:
        return spending.price_of(model)
    source = f"given on the command line on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    return Price(usd_per_million_input=given[0], usd_per_million_output=given[1], source=source)


def estimated(estimate: "Estimate", budget: float | None, model: str) -> Iterator[str]:
    """What is said before a judge is asked."""
    read, written = estimate.input_tokens, estimate.output_tokens
    yield (
        f"{estimate.calls} reviews by {model}: {read[0]:,} to {read[1]:,} tokens in, {written[0]:,} to {written[1]:,} "
        "out (assumed: 3 to 5 characters a token, reviews of 100 to 400 tokens)"
    )
    if estimate.usd is None:
        yield f"dollars: unknown, because the price of {model} is; --price IN OUT says it"
        return
    yield (
        f"dollars: ${estimate.usd[0]:,.2f} to ${estimate.usd[1]:,.2f}, never more than ${estimate.usd_at_most:,.2f} "
        f"if each is asked once; price: {estimate.price_source}"
    )
    if budget is not None:
        yield f"budget: ${budget:,.2f}, which is not exceeded"


def told(done: "Judged") -> Iterator[str]:
    """What is said afterwards."""
    yield f"{done.cases} reviews, {done.unreadable} of them unreadable, are in {done.file}"
    usd = "an unknown number of dollars" if done.usd is None else f"${done.usd:,.4f}"
    yield f"they cost {usd} in all; price: {done.price_source}"
    if done.usd_lost_at_most:
        yield f"of that at most ${done.usd_lost_at_most:,.4f} for calls that were under way when vlaunch was killed"
    yield f"the scores: vlaunch evaluate score {done.file}"


def record(judge: "Judge") -> None:
    """Tell the ledger what judging a run has cost; models that came from no run are none of its business."""
    from launcher.ledger import Ledger, home

    done = judge.so_far()
    runs = {name: run for name, run in judge.runs().items() if run}
    if done is None or not runs:
        return
    baseline, candidate = judge.duel.names
    Ledger(home()).append(
        "evaluation",
        runs.get(candidate) or runs[baseline],
        file=str(Path(done.file).resolve()),
        baseline=baseline,
        candidate=candidate,
        judge=judge.endpoint.model,
        reviews=done.reviews,
        usd=done.usd,
        price_source=done.price_source,
    )
