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


def follow(run: str | None) -> None:
    """Show what changes until nothing runs any more, or Ctrl-C."""
    from launcher.cli.tables import console

    screen = console()
    try:
        if screen.is_terminal:
            _live(run)
        else:
            _lines(run)
    except KeyboardInterrupt:
        click.echo("The runs go on; look again with: vlaunch status --watch", err=True)


def _live(run: str | None) -> None:
    from rich.console import Group
    from rich.live import Live

    from launcher.cli.tables import console

    screen = console()
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            report, _ = look(run)
            going = [each for each in report.runs if each.state == "running"]
            shown: list[RenderableType] = [table(report, screen.width)]
            shown += [_about(each, screen.width) for each in going]
            live.update(Group(*shown), refresh=True)
            if not going:
                return
            time.sleep(_LOOK_SECONDS)


def _lines(run: str | None) -> None:
    said: dict[str, str] = {}
    while True:
        report, _ = look(run)
        for each in report.runs:
            line = plain(each)
            if said.get(each.run_id) != line:
                said[each.run_id] = line
                click.echo(line)
        if not any(each.state == "running" for each in report.runs):
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


def _about(each: "RunCost", width: int) -> "RenderableType":
    """What a run that goes on is doing: the loss as a line, its speed, and the policy's last word."""
    from rich.text import Text

    from checkpoints.stores import StoreError
    from launcher import runs
    from launcher.ledger import Ledger, home

    try:
        lines = runs.latest_metrics(runs.find(Ledger(home()), each.run_id))
    except StoreError as failure:
        return Text(f"{each.run_id}: {failure}")
    said = [f"[{each.run_id}]"]
    if lines:
        losses = [line["loss"] for line in lines]
        said.append(f"loss {sparkline(losses, max(10, width // 3))} {losses[-1]:.4f}")
        said.append(f"{lines[-1]['tokens_per_second']:,.0f} tokens/s")
    if each.decision:
        said.append(f"policy: {each.decision}")
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
