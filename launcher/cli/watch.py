"""`vlaunch status --watch`: a live view on a terminal, a line a change elsewhere."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.status import look, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from launcher.report import RunCost

_LOOK_SECONDS = 2.0
_BARS = "▁▂▃▄▅▆▇█"


def follow(run: str | None, store: str | None) -> None:
    """Show what changes until nothing runs any more, or Ctrl-C."""
    from launcher.cli.tables import console

    screen = console()
    try:
        if screen.is_terminal:
            _live(run, store)
        else:
            _lines(run, store)
    except KeyboardInterrupt:
        click.echo("The runs go on; look again with: vlaunch status --watch", err=True)


def _live(run: str | None, store: str | None) -> None:
    from rich.console import Group
    from rich.live import Live

    from launcher.cli.tables import console
    from launcher.forecast import GOING

    screen = console()
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            report, _ = look(run, store=store)
            going = [each for each in report.runs if each.state in GOING]
            shown: list[RenderableType] = [table(report, screen.width)]
            shown += [_about(each, store, screen.width) for each in going]
            live.update(Group(*shown), refresh=True)
            if not going:
                return
            time.sleep(_LOOK_SECONDS)


def _lines(run: str | None, store: str | None) -> None:
    from launcher.forecast import GOING

    said: dict[str, str] = {}
    while True:
        report, _ = look(run, store=store)
        for each in report.runs:
            line = plain(each)
            if said.get(each.run_id) != line:
                said[each.run_id] = line
                click.echo(line)
        if not any(each.state in GOING for each in report.runs):
            return
        time.sleep(_LOOK_SECONDS)


def plain(each: "RunCost") -> str:
    """One line of words on a run."""
    from launcher.cli.tables import dollars

    parts = [each.run_id, each.state]
    if each.steps:
        parts.append(f"step {each.step}/{each.steps}")
    if each.last_loss is not None:
        parts.append(f"loss {each.last_loss:.4f}")
    if each.attempts:
        parts.append(f"in {each.attempts[-1].zone}")
    parts.append(f"{each.preemptions} times taken away")
    return ", ".join(parts) + f", {dollars(each.usd_spent)}" + (" (simulated)" if each.simulated else "")


def _about(each: "RunCost", store: str | None, width: int) -> "RenderableType":
    """What a run that goes on is doing: where, its loss as a line, its speed, what is left, the policy's last word."""
    from rich.text import Text

    from checkpoints.stores import StoreError
    from launcher import runs
    from launcher.cli.tables import dollars
    from launcher.ledger import Ledger, home

    try:
        lines = runs.latest_metrics(runs.find(Ledger(home()), each.run_id, store=store))
    except StoreError as failure:
        return Text(f"{each.run_id}: {failure}")
    said = [f"[{each.run_id}]"]
    if each.attempts and each.attempts[-1].ended_at is None:
        machine = each.attempts[-1]
        said.append(f"in {machine.zone} at {dollars(machine.usd_per_hour)} an hour")
    if lines:
        losses = [line["loss"] for line in lines]
        said.append(f"loss {sparkline(losses, max(10, width // 3))} {losses[-1]:.4f}")
        said.append(f"{lines[-1]['tokens_per_second']:,.0f} tokens/s")
    if each.hours_left is not None:
        said.append(f"{each.hours_left:.1f} hours left" if each.hours_left >= 0.1 else "minutes left")
    if each.goodput is not None:
        said.append(f"goodput {each.goodput:.0%}")
    if each.decision:
        said.append(f"next: {each.decision}")
    return Text("  ".join(said), overflow="fold")


def sparkline(values: Sequence[Any], width: int) -> str:
    """The last values as bars, the mean of neighbours where there are more than `width`."""
    if not values:
        return ""
    count = min(width, len(values))
    groups = [values[index * len(values) // count : (index + 1) * len(values) // count] for index in range(count)]
    means = [sum(group) / len(group) for group in groups]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)
