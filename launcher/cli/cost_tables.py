"""How a cost report looks on a terminal: machine by machine, run by run, or by group."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from launcher.report import CostReport, RunCost

_DETAILED = 3
"""Up to so many runs are shown machine by machine."""
_LISTED = 20
"""Of more runs, so many of the newest have a line of their own; the totals are over all."""


def shown_range(pair: tuple[float, float] | None, form: str) -> str:
    if pair is None:
        return "not known"
    low, high = (form.format(each) for each in pair)
    return low if low == high else f"{low} to {high}"


def show_billing(found: "CostReport", path: Path, *, as_json: bool) -> None:
    """Charged beside computed, a row a run."""
    import msgspec

    from launcher.billing import charges, compare
    from launcher.cli.tables import Column, console, dollars, fitted

    charged = charges(path)
    rows = compare(found, charged)
    if as_json:
        click.echo(msgspec.json.encode(rows).decode())
        return
    screen = console()
    columns = (
        Column("run", number=False), Column("computed"), Column("charged"), Column("difference", 1),
        Column("what may explain it", 2, number=False),
    )  # fmt: skip
    table = [
        (each.run_id, dollars(each.usd_computed), _known(each.usd_charged), _known(each.usd_difference), each.why)
        for each in rows
    ]
    screen.print(fitted(columns, table, screen.width))
    rest = sum(charge.usd for charge in charged if not charge.run_id)
    screen.print(f"{path}: {len(charged)} charges, {dollars(rest)} of them without the label vlaunch-run")


def _known(usd: float | None) -> str:
    from launcher.cli.tables import dollars

    return "-" if usd is None else dollars(usd)


def show(found: "CostReport", *, every: bool) -> None:
    from launcher.cli.tables import console

    screen = console()
    if len(found.runs) <= _DETAILED and not every:
        for run in found.runs:
            show_run(run)
        _say_others(found)
        _say_budgets(found)
        return
    from launcher.cli.tables import Column, dollars, fitted

    listed = found.runs if every else found.runs[-_LISTED:]
    columns = (
        Column("run", number=False), Column("state", 2, number=False), Column("machines", 4),
        Column("taken away", 3), Column("spent"), Column("on demand", 5), Column("saved", 1), Column("lost", 2),
    )  # fmt: skip
    rows = [
        (
            run.run_id + (" (simulated)" if run.simulated else ""), run.state, str(len(run.attempts)),
            str(run.preemptions), dollars(run.usd_spent), dollars(run.usd_on_demand), dollars(run.usd_saved),
            dollars(run.usd_lost_to_preemption),
        )
        for run in listed
    ]  # fmt: skip
    screen.print(fitted(columns, rows, screen.width))
    if len(listed) < len(found.runs):
        screen.print(f"and {len(found.runs) - len(listed)} older runs, in the totals; --all lists them")
    figures = {
        "spent": [run.usd_spent for run in found.runs],
        "the same hours on demand": [run.usd_on_demand for run in found.runs],
        "saved": [run.usd_saved for run in found.runs],
        "lost to preemption": [run.usd_lost_to_preemption for run in found.runs],
    }
    screen.print(f"{len(found.runs)} runs: " + ", ".join(f"{name} {_summed(each)}" for name, each in figures.items()))
    _say_others(found)
    _say_budgets(found)


def _summed(amounts: list[float | None]) -> str:
    """Their sum; where some are not known, the sum of the others and of how many it is."""
    from launcher.cli.tables import dollars
    from launcher.lines import total

    known = [usd for usd in amounts if usd is not None]
    if not known:
        return "unknown"
    of = f" (of the {len(known)} where it is known)" if len(known) < len(amounts) else ""
    return dollars(total(known)) + of


def _say_others(found: "CostReport") -> None:
    """Judges, SkyPilot's controllers and gateways belong to the total and to no run's machines."""
    from launcher.cli.tables import dollars
    from launcher.lines import total

    said = False
    for what, name in (("judge", "judges of evaluations"), ("controller", "SkyPilot's controllers, gateways")):
        if lines := [line for line in found.lines if line.what == what]:
            click.echo(f"{name}: {dollars(total(line.usd for line in lines))} ({lines[0].price_source})")
            said = True
    if said:
        click.echo(f"with them spent {dollars(found.usd_spent)}")


def _say_budgets(found: "CostReport") -> None:
    from launcher.budgets import budgets
    from launcher.forecast import Budgets, forecast

    set_here = budgets()
    if set_here != Budgets():
        for warning in forecast(found, set_here).warnings:
            click.echo(f"warning: {warning}")


def show_groups(found: "CostReport", by: str) -> None:
    import datetime
    from typing import Any, cast

    from launcher.cli.tables import Column, console, dollars, fitted
    from launcher.lines import grouped

    screen = console()
    now = datetime.datetime.fromisoformat(found.generated_at)
    sums = grouped(found.lines, cast(Any, by), now)
    marks = {(False, False): "", (True, False): "estimated", (False, True): "simulated", (True, True): "simulated"}
    rows = [(each.key, dollars(each.usd), marks[each.estimated, each.simulated]) for each in sums]
    columns = (Column(by, number=False), Column("dollars"), Column("", 1, number=False))
    screen.print(fitted(columns, [*rows, ("total", dollars(found.usd_spent), "")], screen.width))


def show_run(run: "RunCost") -> None:
    from rich.table import Table

    from launcher.cli.tables import Column, console, dollars, fitted

    screen = console()
    simulated = " (all prices are simulated)" if run.simulated else ""
    kind = "service " if run.kind == "service" else ""
    columns = (
        Column("#"), Column("zone", number=False), Column("from (UTC)", 4), Column("to", 5),
        Column("why it ended", 2, number=False), Column("$/hour", 3), Column("dollars"), Column("kept", 1),
        Column("again", 1), Column("lost", 3),
    )  # fmt: skip
    rows = [
        (
            str(each.number), each.zone, each.started_at[:16].replace("T", " "),
            each.ended_at[11:16] if each.ended_at else "", each.end_reason, dollars(each.usd_per_hour),
            dollars(each.usd), str(each.steps_kept), str(each.steps_lost), dollars(each.usd_lost),
        )
        for each in run.attempts
    ]  # fmt: skip
    screen.print(fitted(columns, rows, screen.width, f"{kind}{run.run_id}: {run.state}{simulated}"))
    for note in run.notes:
        screen.print(f"note: {note}")
    parts = _parts(run)
    lines = (
        ("spent", run.usd_spent, f"{run.hours:.2f} hours; price: {run.price_source}"),
        *(("  " + name, usd, source and f"estimated; {source}") for name, usd, source in parts),
        ("the same hours on demand", run.usd_on_demand, f"at {dollars(run.on_demand_usd_per_hour)} an hour"),
        ("an uninterrupted on-demand run", run.usd_uninterrupted_on_demand, "without restarts and work done again"),
        ("saved", run.usd_saved, "against the uninterrupted on-demand run"),
        ("lost to preemption", run.usd_lost_to_preemption, f"{run.preemptions} times taken away"),
    )
    totals = Table.grid(padding=(0, 2))
    for _ in range(2):
        totals.add_column(no_wrap=True)
    totals.columns[1].justify = "right"
    for name, usd, note in lines:
        totals.add_row(f" {name}", dollars(usd), note)
    screen.print(totals)


def _parts(run: "RunCost") -> list[tuple[str, float | None, str]]:
    """Spent, by what it went on; where an amount is estimated, by which prices."""
    from launcher.lines import total
    from launcher.report import compute_lines

    lines = compute_lines(run)
    names = {"work": "work kept", "starting up": "starting up", "done again": "work done again",
             "late detection": "gone before it was noticed"}  # fmt: skip
    found = [(shown, [line for line in lines if line.part == part], "") for part, shown in names.items()]
    found += [
        (shown, each := [line for line in run.upkeep if line.what == what], each[0].price_source if each else "")
        for what, shown in (("storage", "checkpoints kept"), ("egress", "checkpoints carried"))
    ]
    return [(shown, total(line.usd for line in each), source) for shown, each, source in found if each]
