"""The `vlaunch data` commands that make sets of conversations out of sets, and that look at one."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli.answer import json_option, say

if TYPE_CHECKING:
    from conversations.inspect import Facts

PATH = click.Path(path_type=Path)


@click.command()
@click.option("--name", required=True, help="The model's name.")
@click.option("--org", required=True, help="Who trains it.")
@click.option("--out", type=PATH, required=True, metavar="FILE", help="Where the conversations go.")
@json_option
def identity(name: str, org: str, out: Path, *, as_json: bool) -> None:
    """Make conversations in which a model learns who it is."""
    from conversations import select

    count = select.identity(name, org, out)
    say(f"{count} conversations in {out}", as_json=as_json, out=out, conversations=count)


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IN[=WEIGHT]...")
@click.option("--out", type=PATH, required=True, metavar="FILE", help="Where the conversations go.")
@json_option
def mix(inputs: tuple[str, ...], out: Path, *, as_json: bool) -> None:
    """Put sets together, each as often as its weight says: clean.jsonl=1 identity.jsonl=3."""
    from conversations import select
    from launcher import chats

    weighted = []
    for each in inputs:
        name, equals, weight = each.rpartition("=")
        try:
            weighted.append((chats.find([name if equals else each]), float(weight) if equals else 1.0))
        except ValueError:
            raise click.UsageError(f"The weight of {each} is not a number.") from None
        if weighted[-1][1] < 0:
            raise click.UsageError(f"The weight of {each} is below 0.")
    counts = list(zip(inputs, select.mix(weighted, out), strict=True))
    said = "\n".join(f"{count:,} of {each}" for each, count in counts)
    say(said, as_json=as_json, out=out, conversations=sum(count for _, count in counts), of=counts)


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IN...")
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, help="How many.")
@click.option("--out", type=PATH, required=True, metavar="FILE", help="Where the conversations go.")
@json_option
def sample(inputs: tuple[str, ...], count: int, out: Path, *, as_json: bool) -> None:
    """Take some conversations, the same ones each time."""
    from conversations import select
    from launcher import chats

    taken = select.sample(chats.find(inputs), out, count=count)
    say(f"{taken:,} conversations in {out}", as_json=as_json, out=out, conversations=taken)


@click.command("train-test")
@click.argument("inputs", nargs=-1, required=True, metavar="IN...")
@click.option(
    "--share", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="About how much is for test."
)
@click.option("--train", "train_file", type=PATH, required=True, metavar="FILE", help="Where the training set goes.")
@click.option("--test", "test_file", type=PATH, required=True, metavar="FILE", help="Where the test set goes.")
@json_option
def train_test(inputs: tuple[str, ...], share: float, train_file: Path, test_file: Path, *, as_json: bool) -> None:
    """Part a set into training and test, by a hash of each conversation's id.

    A conversation stays on its side when the set grows, and the pieces of one are on the same side.
    """
    from conversations import select
    from launcher import chats

    counts = select.train_test(chats.find(inputs), train_file, test_file, share=share)
    say(
        f"{counts[0]:,} conversations in {train_file}, {counts[1]:,} in {test_file}",
        as_json=as_json, train=train_file, train_conversations=counts[0], test=test_file, test_conversations=counts[1],
    )  # fmt: skip


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IN...")
@click.option("--tokenizer", metavar="T", help="Count tokens by this tokenizer, as for split.")
@click.option("--template", "template_name", default="chatml", show_default=True, metavar="NAME", help="As for split.")
@click.option("--html", "page_file", type=PATH, metavar="FILE", help="Write a page to look at.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; the keys are in docs/conversations.md.")
def inspect(
    inputs: tuple[str, ...], tokenizer: str | None, template_name: str, page_file: Path | None, as_json: bool
) -> None:
    """Show what is in a set: counts, languages, turns, tokens, samples, and what the rules removed."""
    import msgspec

    from conversations import inspect as looking
    from conversations.output import writing
    from conversations.tokens import Counter
    from launcher import chats
    from train.templates import NAMED

    if template_name != "tokenizer" and template_name not in NAMED:
        raise click.UsageError(f"There is no template '{template_name}'; known are {', '.join(NAMED)} and tokenizer.")
    counter = Counter(tokenizer, NAMED.get(template_name)) if tokenizer else None
    local = len(inputs) == 1 and "://" not in inputs[0]
    facts = looking.inspect(chats.find(inputs), counter, Path(inputs[0]) if local else None)
    if page_file:
        with writing(page_file):
            page_file.write_text(looking.page(facts, ", ".join(inputs)), encoding="utf-8")
    if as_json:
        click.echo(msgspec.json.encode(facts).decode())
    else:
        _show(facts)


def _show(facts: "Facts") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from conversations.inspect import flat

    console = Console(highlight=False)
    tokens = "" if facts.tokens is None else f", {facts.tokens:,} tokens (longest {facts.longest_tokens:,})"
    console.print(
        f"{facts.conversations:,} conversations, {facts.turns:,} turns, {facts.characters:,} characters{tokens}"
    )
    table = Table(
        title="size in " + ("characters" if facts.tokens is None else "tokens"), title_justify="left", box=None
    )
    most = max(facts.sizes.values(), default=1)
    for low, count in facts.sizes.items():
        table.add_row(f"{low:,} to {2 * low - 1:,}", f"{count:,}", "█" * max(1, 40 * count // most))
    console.print(table)
    turns = {str(number): count for number, count in facts.turns_a_conversation.items()}
    said = (("turns", turns), ("languages", facts.languages), ("removed and changed", flat(facts.removed)))
    for title, counts in said:
        if counts:
            console.print(Text(f"{title}: " + ", ".join(f"{key} {count:,}" for key, count in counts.items())))
    for each in facts.samples:
        console.print(Text(f"\n{each.id}", style="bold"))
        for turn in each.conversations[:4]:
            console.print(Text(f"{turn.speaker}: {turn.value[:300]}"))
