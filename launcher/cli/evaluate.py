"""`vlaunch evaluate`: answers, a judge, scores, and a page that shows them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli import Group
from launcher.cli.answer import json_option, say

if TYPE_CHECKING:
    from evaluation.records import Mode


@click.group(cls=Group)
def evaluate() -> None:
    """Is the model good? Answers, a judge, and scores one can trust."""


FILE = click.Path(path_type=Path)
_questions = click.option(
    "--questions", metavar="FILE", type=FILE, help="Questions as JSON lines, in place of our own."
)
_names = click.option(
    "--names", nargs=2, metavar="BASELINE CANDIDATE", help="Which models are compared, where reviews do not say."
)
_folder = click.option(
    "--folder", type=FILE, default=Path("evaluations"), show_default=True, help="Where answers and reviews are kept."
)
_at_once = click.option("--at-once", type=click.IntRange(1), default=4, show_default=True, help="Requests at a time.")
_key = click.option(
    "--key-variable", metavar="NAME", default="OPENAI_API_KEY", show_default=True, help="Holds the endpoint's key."
)
_categories = click.option("--category", "categories", multiple=True, help="Only this category; may be given again.")
_limit = click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N questions.")


@evaluate.command()
@click.option(
    "--model", required=True, metavar="URL|RUN|PATH", help="An endpoint, a training run, or a model's folder."
)
@click.option("--name", required=True, help="What the model is called in reviews.")
@click.option("--model-id", metavar="NAME", help="What the endpoint calls it, where it serves several.")
@click.option(
    "--run", metavar="RUN", help="The training run behind a URL or a folder, to join scores with its dollars."
)
@_questions
@_categories
@_limit
@_folder
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.7, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=1024, show_default=True, help="Of one answer.")
@click.option("--seed", type=int, default=0, show_default=True)
@_at_once
@_key
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; the keys are in docs/evaluation.md.")
def answer(
    model: str,
    name: str,
    model_id: str | None,
    run: str | None,
    questions: Path | None,
    categories: tuple[str, ...],
    limit: int | None,
    folder: Path,
    temperature: float,
    max_tokens: int,
    seed: int,
    at_once: int,
    key_variable: str,
    as_json: bool,
) -> None:
    """A model's answers to the questions; run again, it goes on where it was.

    A run or a folder is served on this machine for as long as it is asked, with `transformers serve`.
    """
    import contextlib

    import msgspec

    from evaluation import answering, sets
    from evaluation.endpoint import Endpoint, Parameters
    from evaluation.engine import Engine
    from launcher import exports

    path = answering.file(folder, name)
    asked = sets.load(questions, categories, limit)
    served = exports.find_model(model, run)
    with contextlib.ExitStack() as stack:
        url, called = served.url, model_id or ""
        if served.folder is not None:
            click.echo(f"serving {served.folder} on this machine", err=True)
            engine = stack.enter_context(Engine(served.folder, folder / "engine.log"))
            url, called = engine.url, str(engine.model)
        done = answering.answer(
            asked,
            Endpoint(url, called, key_variable),
            path=path,
            name=name,
            run_id=served.run_id,
            parameters=Parameters(temperature=temperature, max_tokens=max_tokens, seed=seed),
            at_once=at_once,
            tell=_progress("answers"),
        )
    if as_json:
        click.echo(msgspec.json.encode(done).decode())
        return
    click.echo(f"{done.questions} answers of {name}, {done.new} of them new, are in {done.file}")
    if done.cut or done.empty:
        click.echo(f"{done.cut} were cut off at {max_tokens} tokens, {done.empty} are empty")


@evaluate.command()
@click.option("--baseline", required=True, metavar="NAME|FILE", help="The model to compare with.")
@click.option("--candidate", required=True, metavar="NAME|FILE", help="The model in question.")
@click.option("--judge", "model", default="gpt-4.1", show_default=True, metavar="MODEL", help="Who judges.")
@click.option("--judge-url", default="https://api.openai.com/v1", show_default=True, metavar="URL", help="Where it is.")
@click.option("--mode", type=click.Choice(["pair", "single"]), default="pair", show_default=True)
@click.option("--swap/--no-swap", default=True, show_default=True, help="Ask in both orders.")
@click.option("--budget", type=click.FloatRange(0), metavar="USD", help="Stop before more than this is spent in all.")
@click.option("--price", nargs=2, type=click.FloatRange(0), metavar="IN OUT", help="Dollars per million tokens.")
@_questions
@_categories
@_limit
@_folder
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.2, show_default=True)
@click.option("--max-tokens", type=click.IntRange(16), default=1024, show_default=True, help="Of one review.")
@_at_once
@_key
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and ask nothing.")
@click.option("--yes", is_flag=True, help="Spend without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; the keys are in docs/evaluation.md.")
def judge(
    baseline: str,
    candidate: str,
    model: str,
    judge_url: str,
    mode: "Mode",
    swap: bool,
    budget: float | None,
    price: tuple[float, float] | None,
    questions: Path | None,
    categories: tuple[str, ...],
    limit: int | None,
    folder: Path,
    temperature: float,
    max_tokens: int,
    at_once: int,
    key_variable: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """A judge's reviews of two models' answers; run again, it goes on where it was.

    Says first what it will cost. --budget is kept: a question that could cost more than is left is not asked.
    """
    import msgspec

    from evaluation import judging, sets
    from evaluation.endpoint import Endpoint, Parameters
    from launcher.cli import judged

    duel = judged.duel(folder, (baseline, candidate), sets.load(questions, categories, limit), mode, swap)
    known = judged.price(model, price)
    if budget is not None and known is None:
        raise click.UsageError(f"The price of {model} is not known, so no budget can be kept; give --price IN OUT.")
    judge = judging.Judge(
        Endpoint(judge_url, model, key_variable),
        duel,
        path=judging.file(folder, duel),
        parameters=Parameters(temperature=temperature, max_tokens=max_tokens),
        price=known,
        budget=budget,
    )
    estimate = judge.estimate()
    if dry_run and as_json:
        click.echo(msgspec.json.encode(estimate).decode())
        return
    for line in judged.estimated(estimate, budget, model):
        click.echo(line, err=True)
    if dry_run:
        return
    if estimate.calls and not yes and estimate.usd_at_most != 0:
        click.confirm("Ask?", abort=True, err=True)
    try:
        done = judge.run(at_once=at_once, tell=_progress("reviews"))
    finally:
        judged.record(judge)
    click.echo(msgspec.json.encode(done).decode() if as_json else "\n".join(judged.told(done)))


@evaluate.command()
@click.argument("reviews", nargs=-1, required=True, type=FILE)
@_names
@_questions
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; the keys are in docs/evaluation.md.")
def score(reviews: tuple[Path, ...], names: tuple[str, str] | None, questions: Path | None, as_json: bool) -> None:
    """Totals, wins, position bias and intervals of REVIEWS: files, or folders of them.

    Categories come from the reviews, or from --questions for reviews that do not say theirs.
    """
    import msgspec

    from evaluation import records
    from evaluation import reviews as files
    from launcher.cli import scores

    about = {each.question_id: each.category for each in records.questions(questions)} if questions else {}
    pairs = files.score(files.listed(reviews), names, about)
    worth = scores.worth_of(pairs)
    if as_json:
        click.echo(msgspec.json.encode({"pairs": pairs, "runs": worth}).decode())
        return
    for pair in pairs:
        scores.show(pair)
    if worth:
        scores.show_worth(worth)


@evaluate.command()
@click.argument("reviews", nargs=-1, required=True, type=FILE)
@click.option("--html", "target", type=FILE, required=True, metavar="FILE", help="Where the page is written.")
@click.option("--answers", multiple=True, type=FILE, metavar="FILE", help="Answers to show, or a folder of them.")
@_names
@_questions
@json_option
def report(
    reviews: tuple[Path, ...],
    target: Path,
    answers: tuple[Path, ...],
    names: tuple[str, str] | None,
    questions: Path | None,
    as_json: bool,
) -> None:
    """One self-contained page of REVIEWS: totals, bars, every question with its answers and the judge's words.

    Answers are looked for in the folder answers/ beside the reviews' own, unless --answers says where.
    """
    from launcher.cli import scores

    count = scores.write_page(target, reviews, answers, names, questions)
    say(
        f"{target} shows {count} questions; open it in any browser", as_json=as_json, page=target, questions=count
    )  # fmt: skip


def _progress(of: str) -> "Callable[[int, int], None]":
    """A bar on a terminal; elsewhere nothing, so that output stays lines."""

    def tell(done: int, count: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{done} of {count} {of}" + ("\n" if done == count else ""), nl=False, err=True)

    return tell
