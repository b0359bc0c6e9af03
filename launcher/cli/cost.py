"""`vlaunch cost`: what runs cost, against what they would have cost."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from launcher.ledger import Ledger
    from launcher.report import CostReport, RunCost


@click.group()
def cost() -> None:
    """What runs cost."""


@cost.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; the keys are in docs/cost.md.")
def report(runs: tuple[str, ...], as_json: bool) -> None:
    """Dollars by machine, spent, saved and lost. Without RUN, of all runs."""
    import msgspec

    found = build(runs)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    if not found.runs:
        click.echo("There is no run to report on yet; begin one with: vlaunch train --spot --infra local")
    for run in found.runs:
        _show(run)


def build(wanted: tuple[str, ...], ledger: "Ledger | None" = None) -> "CostReport":
    """The report over the runs named, or over all."""
    import datetime
    import gc

    from launcher import runs
    from launcher.ledger import Ledger, home
    from launcher.report import cost as reckon

    gc.disable()  # ten thousand runs make a million objects and no cycles; the process ends soon
    ledger = ledger or Ledger(home())
    records = [runs.find(ledger, run) for run in wanted] if wanted else list(ledger.runs().values())
    facts = [runs.facts(each) for each in records]
    if ledger.restored:
        click.echo(f"{ledger.path} was gone; {ledger.restored} records were put back from the runs' copies", err=True)
    if ledger.damaged:
        click.echo(f"{ledger.damaged} damaged lines of {ledger.path} were passed over", err=True)
    return reckon(facts, datetime.datetime.now(datetime.UTC))


def report_json(ledger: "Ledger", wanted: tuple[str, ...]) -> str:
    """The JSON of the report over the runs named."""
    import msgspec

    return msgspec.json.encode(build(wanted, ledger)).decode()


def dollars(usd: float | None) -> str:
    """With cents, the sign first; an unknown price is said."""
    if usd is None:
        return "unknown"
    return f"-${-usd:,.2f}" if round(usd, 2) < 0 else f"${abs(usd):,.2f}"


def _show(run: "RunCost") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    simulated = " (all prices are simulated)" if run.simulated else ""
    table = Table(title=f"{run.run_id}: {run.state}{simulated}", title_justify="left")
    columns = ("", "zone", "from (UTC)", "to", "why it ended", "$/hour", "dollars", "steps kept", "done again")
    for heading in columns:
        table.add_column(heading, overflow="fold", justify="right" if heading in columns[5:] or not heading else "left")
    for each in run.attempts:
        table.add_row(
            str(each.number),
            each.zone,
            each.started_at[:19].replace("T", " "),
            each.ended_at[11:19] if each.ended_at else "",
            each.end_reason,
            dollars(each.usd_per_hour),
            dollars(each.usd),
            str(each.steps_kept),
            str(each.steps_lost),
        )
    console.print(table)
    rows = (
        ("spent", run.usd_spent, f"{run.hours:.2f} hours; price: {run.price_source}"),
        ("the same hours on demand", run.usd_on_demand, f"at {dollars(run.on_demand_usd_per_hour)} an hour"),
        ("an uninterrupted on-demand run", run.usd_uninterrupted_on_demand, "without restarts and work done again"),
        ("saved", run.usd_saved, "against the uninterrupted on-demand run"),
        ("lost to preemption", run.usd_lost_to_preemption, f"{run.preemptions} times taken away"),
    )
    for note in run.notes:
        console.print(f"note: {note}")
    totals = Table(show_header=False, box=None)
    for name, usd, note in rows:
        totals.add_row(name, dollars(usd), note)
    console.print(totals)
