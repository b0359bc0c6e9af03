"""`vlaunch data`: raw chats to training conversations, and a look at what is in a file of them."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher.cli import Group, data_sets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conversations.clean import Cleaned
    from conversations.sources import Source


@click.group(cls=Group)
def data() -> None:
    """Raw chats to training conversations."""


PATH = click.Path(path_type=Path)


@data.command()
@click.argument("inputs", nargs=-1, metavar="IN...")
@click.option("--out", type=PATH, metavar="FILE", help="Where they go: .json or .jsonl, also .gz or .zst.")
@click.option("--report", type=PATH, metavar="FILE", help="What happened to each record.  [default: beside --out]")
@click.option("--rules", "rules_file", type=PATH, metavar="FILE", help="TOML that tunes rules or switches them off.")
@click.option("--show-rules", is_flag=True, help="Print the rules as such a file, and do nothing.")
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="Worker processes.  [default: one a core]")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON; keys in docs/conversations.md.")
def clean(
    inputs: tuple[str, ...],
    out: Path | None,
    report: Path | None,
    rules_file: Path | None,
    show_rules: bool,
    processes: int | None,
    as_json: bool,
) -> None:
    """Convert, filter and deduplicate raw chats.

    IN is ShareGPT JSON or OpenAI messages: a list, JSON lines, compressed, a folder, a Hugging Face dataset's folder,
    s3:// or gs://. An interrupted run goes on when the same command is given again. Exit code 1 with the result
    written: some records could not be read; the report names them.
    """
    from conversations import clean as cleaning
    from conversations import rules
    from launcher import chats

    chosen = rules.load(rules_file)
    if show_rules:
        click.echo(rules.to_toml(chosen), nl=False)
        return
    if not inputs or out is None:
        raise click.UsageError("Name the chats and where they go: vlaunch data clean IN... --out FILE")
    given = chats.find(inputs)
    beside = report or _beside(out, ".report.jsonl")
    with _progress("cleaning", given) as progress:
        done = cleaning.clean(given, out, beside, chosen, processes=processes, progress=progress)
    _show_cleaned(done, as_json)


def _beside(out: Path, ending: str) -> Path:
    """`chats.jsonl.gz` to `chats.report.jsonl`, in the same folder."""
    stem = out.name
    for suffix in (".gz", ".zst", ".jsonl", ".json"):
        stem = stem.removesuffix(suffix)
    return out.with_name(stem + ending)


@contextlib.contextmanager
def _progress(what: str, given: "list[Source]") -> "Iterator[Callable[[int, int], None]]":
    """A bar on standard error over the bytes of the inputs, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda bytes_read, records: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[records]:,} records"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(what, total=sum(source.size for source in given), records=0)
        yield lambda bytes_read, records: bar.update(task, completed=bytes_read, records=records)


def _show_cleaned(done: "Cleaned", as_json: bool) -> None:
    """The accounts, and exit code 1 where records could not be read."""
    import msgspec

    counts = done.counts
    unreadable = sum(counts.unreadable.values())
    if as_json:
        found = {"out": str(done.out), "report": str(done.report), "resumed_records": done.resumed_records}
        click.echo(msgspec.json.encode(found | {"counts": msgspec.to_builtins(counts)}).decode())
    else:
        if done.resumed_records:
            click.echo(f"went on after {done.resumed_records:,} records that were done before", err=True)
        _show_counts(done)
    for row in done.named:
        click.echo(f"{row.record} ({row.id}): {row.reason}: {row.detail}", err=True)
    if unreadable:
        more = unreadable - len(done.named)
        others = f" {more} more are" if more else " They are" if unreadable > 1 else " It is"
        click.echo(
            f"vlaunch: {unreadable} of {counts.records_in} records could not be read.{others} named in {done.report}; "
            f"the other records are in {done.out}.",
            err=True,
        )
        sys.exit(1)


def _show_counts(done: "Cleaned") -> None:
    counts = done.counts
    lines = [("in", counts.records_in), ("kept", counts.kept)]
    for outcome in ("merged", "dropped", "unreadable"):
        lines += [(f"{outcome}: {reason}", count) for reason, count in _sorted(getattr(counts, outcome))]
    lines += [(f"kept, changed by {rule}", count) for rule, count in _sorted(counts.changed)]
    click.echo(f"{done.out}, records:")
    for what, count in lines:
        click.echo(f"  {what:<40}{count:>12,}")
    click.echo(f"of every record: {done.report}")


def _sorted(reasons: dict[str, int]) -> list[tuple[str, Any]]:
    return sorted(reasons.items(), key=lambda each: (-each[1], each[0]))


@data.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IN...")
@click.option("--tokenizer", required=True, metavar="T", help="A Hugging Face name, a folder, a tokenizer.json, or "
              "package:NAME/FILE.gguf.")  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(min=16), default=2048, show_default=True, metavar="N",
              help="The longest piece, template and system prompt included.")  # fmt: skip
@click.option("--template", "template_name", default="tokenizer", show_default=True, metavar="NAME",
              help="vicuna, chatml, llama2, or the tokenizer's own.")  # fmt: skip
@click.option(
    "--out", type=PATH, required=True, metavar="FILE", help="Where the pieces go: .json or .jsonl, packed or not."
)
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="Worker processes.  [default: one a core]")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON; keys in docs/conversations.md.")
def split(
    inputs: tuple[str, ...],
    tokenizer: str,
    max_tokens: int,
    template_name: str,
    out: Path,
    processes: int | None,
    as_json: bool,
) -> None:
    """Split long conversations into pieces that fit the model's context.

    Pieces end at the borders of rounds. An answer that does not fit alone is cut at a paragraph and marked under "cut".
    """
    import msgspec

    from conversations import split as splitting
    from launcher import chats
    from train.templates import NAMED

    if template_name != "tokenizer" and template_name not in NAMED:
        raise click.UsageError(f"There is no template '{template_name}'; known are {', '.join(NAMED)} and tokenizer.")
    given = chats.find(inputs)
    with _progress("splitting", given) as progress:
        done = splitting.split(
            given, out, tokenizer=tokenizer, template=NAMED.get(template_name), template_name=template_name,
            max_tokens=max_tokens, processes=processes, progress=progress,
        )  # fmt: skip
    counts = done.counts
    if as_json:
        click.echo(msgspec.json.encode({"out": str(out), "counts": msgspec.to_builtins(counts)}).decode())
    else:
        click.echo(
            f"{counts.conversations_in:,} conversations in, {counts.pieces:,} pieces of {counts.tokens:,} tokens"
        )
        click.echo(
            f"{counts.whole:,} fit as they were; {counts.answers_cut:,} answers were cut at a border inside them"
        )
    for line in done.named:
        click.echo(line, err=True)
    if unreadable := sum(counts.unreadable.values()):
        click.echo(f"vlaunch: {unreadable} records could not be used; the others are in {out}.", err=True)
        sys.exit(1)


for each in (data_sets.inspect, data_sets.identity, data_sets.mix, data_sets.sample, data_sets.train_test):
    data.add_command(each)


def for_training(path: str, *, yes: bool) -> str:
    """The file to train on: what was given if this room made it, else what cleaning makes of it, after asking."""
    from conversations import clean as cleaning
    from conversations.output import read_manifest
    from conversations.rules import Rules
    from launcher import chats
    from launcher.ledger import home

    given = Path(path).expanduser()
    if "://" not in path and given.is_file() and read_manifest(given) is not None:
        return str(given.resolve())
    sources = chats.find([path])
    out = home() / "data" / f"{Path(path).name.split('.')[0] or 'chats'}.clean.jsonl"
    question = f"{path} has no manifest: it is raw. Clean it into {out} and train on that?"
    if not yes and not click.confirm(question, err=True):
        raise click.UsageError(f"Clean it yourself and give the result: vlaunch data clean {path} --out FILE")
    with _progress("cleaning", sources) as progress:
        done = cleaning.clean(sources, out, _beside(out, ".report.jsonl"), Rules(), progress=progress)
    counts = done.counts
    click.echo(f"cleaned: {counts.kept:,} of {counts.records_in:,} kept; of each: {done.report}", err=True)
    return str(out.resolve())
