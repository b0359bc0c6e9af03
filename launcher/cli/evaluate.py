"""`vlaunch evaluate`: answers, a judge, scores, and a page that shows them."""

from pathlib import Path

import click


@click.group()
def evaluate() -> None:
    """Is the model good? Answers, a judge, and scores one can trust."""


FILE = click.Path(path_type=Path)
_questions = click.option(
    "--questions", metavar="FILE", type=FILE, help="Questions as JSON lines, in place of our own."
)
_names = click.option(
    "--names", nargs=2, metavar="BASELINE CANDIDATE", help="Which models are compared, where reviews do not say."
)


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
    if as_json:
        click.echo(msgspec.json.encode({"pairs": pairs}).decode())
        return
    for pair in pairs:
        scores.show(pair)
