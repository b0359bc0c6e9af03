"""`vlaunch status`: what runs there are and how they stand, once or live."""

from typing import TYPE_CHECKING

import click

from launcher.cli.completion import run_ids

if TYPE_CHECKING:
    from rich.table import Table

    from launcher.report import CostReport, RunCost

_LISTED = 20


@click.command()
@click.argument("run", required=False, shell_complete=run_ids)
@click.option("--watch", is_flag=True, help="Stay and show what changes, until nothing runs any more.")
@click.option("--all", "every", is_flag=True, help="Every run, not the newest 20 and those that go on.")
@click.option("--store", metavar="URI", help="Find RUN in this store, launched from whatever machine.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def status(run: str | None, watch: bool, every: bool, store: str | None, as_json: bool) -> None:
    """How runs stand: state, steps, machines, dollars. Without RUN, the newest."""
    import msgspec

    if store is not None and run is None:
        raise click.UsageError("--store needs the full name of a RUN.")
    if watch:
        from launcher.cli.watch import follow

        follow(run, store)
        return
    report, older = look(run, every=every, store=store)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    if not report.runs:
        click.echo("There is no run yet; begin one with: vlaunch train --spot --infra local")
        return
    from launcher.cli.tables import console

    screen = console()
    screen.print(table(report, screen.width))
    if older:
        screen.print(f"and {older} older runs; --all lists them")
    for each in report.runs:
        for decided in each.decisions if run else ():
            screen.print(f"{decided.at[:19].replace('T', ' ')}  {decided.action} {decided.place}: {decided.reason}")
        for note in (*filter(None, [each.why]), *each.notes) if run else ():
            screen.print(f"note: {note}")
        if run and each.state in ("stopped", "launcher died"):
            click.echo(f"go on with: vlaunch train --resume {each.run_id}")


def look(run: str | None, *, every: bool = False, store: str | None = None) -> tuple["CostReport", int]:
    """The report over one run, or over the newest and those that go on; how many older ones are left out."""
    from launcher import runs
    from launcher.cli.cost import build
    from launcher.ledger import Ledger, home

    if run or every:
        return build((run,) if run else (), store=store), 0
    ledger = Ledger(home())
    known = ledger.runs()
    shown = runs.recent(known, _LISTED)
    if not shown:
        return build((), ledger), 0
    return build(tuple(shown), ledger, known=known), len(known) - len(shown)


def table(report: "CostReport", width: int) -> "Table":
    """A line a run, as wide as there is room."""
    from launcher.cli.tables import Column, fitted

    columns = (
        Column("run", number=False), Column("state", number=False), Column("step", 1), Column("loss", 3),
        Column("machines", 5), Column("taken away", 4), Column("zone", 6, number=False), Column("spent", 1),
    )  # fmt: skip
    return fitted(columns, [_row(each) for each in report.runs], width)


def _row(each: "RunCost") -> tuple[str, ...]:
    from launcher.cli.tables import dollars

    return (
        each.run_id,
        each.state,
        f"{each.step}/{each.steps}" if each.steps else "-",
        f"{each.last_loss:.4f}" if each.last_loss is not None else "-",
        str(len(each.attempts)),
        str(each.preemptions),
        each.attempts[-1].zone if each.attempts else "-",
        dollars(each.usd_spent) + (" simulated" if each.simulated else ""),
    )
