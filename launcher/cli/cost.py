"""`vlaunch cost`: what things cost, against what they would have cost."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli import Group
from launcher.cli.completion import run_ids

if TYPE_CHECKING:
    import datetime

    from launcher.ledger import Ledger, Runs
    from launcher.lines import CostLine
    from launcher.machines import RunFacts
    from launcher.report import CostReport


@click.group(cls=Group)
def cost() -> None:
    """What runs cost."""


@cost.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=run_ids)
@click.option("--since", metavar="7d", help="Only what began in this time, or since this day (2026-11-01).")
@click.option(
    "--by",
    type=click.Choice(["run", "zone", "day", "owner", "accelerator", "what"]),
    help="Dollars of each run, zone, UTC day, owner, accelerator, or kind of cost.",
)
@click.option("--all", "every", is_flag=True, help="A line for every run, however many.")
@click.option("--store", metavar="URI", help="Find each RUN in this store, launched from whatever machine.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; the keys are in docs/cost.md.")
@click.option("--csv", "as_csv", is_flag=True, help="Print every cost line as CSV.")
@click.option(
    "--billing",
    type=click.Path(path_type=Path),
    help="Put what a cloud charged beside it: an AWS or Google Cloud billing export, CSV or Parquet.",
)
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write the report as one page to this file.")
def report(
    runs: tuple[str, ...],
    since: str | None,
    by: str | None,
    every: bool,
    store: str | None,
    as_json: bool,
    as_csv: bool,
    billing: Path | None,
    page: Path | None,
) -> None:
    """Dollars by machine, spent, saved and lost. Without RUN, of all runs."""
    import msgspec

    from launcher.cli.cost_tables import show, show_billing, show_groups

    if store is not None and not runs:
        raise click.UsageError("--store needs the full name of each RUN.")
    found = build(runs, since=since, store=store)
    if billing:
        show_billing(found, billing, as_json=as_json)
    elif as_json:
        click.echo(msgspec.json.encode(found).decode())
    elif as_csv:
        from launcher.lines import to_csv

        click.echo(to_csv(found.lines), nl=False)
    elif not found.runs and not found.lines:
        click.echo("There is no run to report on; begin one with: vlaunch train --spot --infra local")
    elif page:
        _write_page(found, page)
    elif by:
        show_groups(found, by)
    else:
        show(found, every=every)


@cost.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; the keys are in docs/cost.md.")
def forecast(as_json: bool) -> None:
    """What runs and services that go on will have cost by their end and the month's, against the budgets."""
    import msgspec

    from launcher.budgets import budgets
    from launcher.cli.cost_tables import shown_range
    from launcher.cli.tables import Column, console, dollars, fitted
    from launcher.forecast import forecast as reckon

    report = build(())
    found = reckon(report, budgets())
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    screen = console()
    columns = (
        Column("run", number=False), Column("spent"), Column("hours left", 1), Column("at its end"),
        Column("at the month's end", 1),
    )  # fmt: skip
    rows = [
        (
            each.run_id + (" (simulated)" if each.simulated else ""),
            dollars(each.usd_spent),
            shown_range(each.hours_left, "{:.1f}"),
            shown_range(each.usd_at_end, "${:,.2f}"),
            shown_range(each.usd_at_month_end, "${:,.2f}"),
        )
        for each in found.runs
    ]
    if rows:
        screen.print(fitted(columns, rows, screen.width))
    else:
        screen.print("Nothing runs now.")
    screen.print(
        f"{found.month}: spent {dollars(found.usd_this_month)} so far, by the month's end "
        f"{shown_range(found.usd_month_end, '${:,.2f}')} (low: no more preemption; high: the goodput so far "
        "stays, and replicas are on demand)"
    )
    for warning in found.warnings:
        screen.print(f"warning: {warning}")


def build(
    wanted: tuple[str, ...],
    ledger: "Ledger | None" = None,
    since: str | None = None,
    known: "Runs | None" = None,
    store: str | None = None,
) -> "CostReport":
    """The report over the runs named, or over all; `known` is the ledger's reading where there is one already. With
    `store`, over runs that were launched from whatever machine."""
    import datetime
    import gc

    from launcher import runs
    from launcher.ledger import Ledger, home
    from launcher.report import cost as reckon

    gc.disable()  # ten thousand runs make a million objects and no cycles; the process ends soon
    now = datetime.datetime.now(datetime.UTC)
    begin = _moment(since, now) if since else None
    ledger = ledger or Ledger(home())
    known = ledger.runs() if known is None else known
    records = [runs.find(ledger, run, known, store) for run in wanted] if wanted else list(known.values())
    facts = [
        runs.facts(each)
        for each in records
        if each and (begin is None or datetime.datetime.fromisoformat(each[0].at) >= begin)
    ]
    say_damage(ledger)
    judged = [
        each
        for each in ([] if wanted else known.evaluations())
        if begin is None or datetime.datetime.fromisoformat(each.at) >= begin
    ]
    return reckon(facts, now, judged, () if wanted else _controllers(facts, now))


def _controllers(facts: "list[RunFacts]", now: "datetime.datetime") -> "list[CostLine]":
    """SkyPilot's own machines and our gateways', where it has anything to do with these runs."""
    import datetime

    from launcher.ledger import home
    from launcher.runs import LOCAL

    there = [run for run in facts if run.records[0].facts.get("infra", LOCAL) != LOCAL]
    if not there:
        return []
    from launcher import managed

    launched = datetime.datetime.fromisoformat(max(run.records[0].at for run in there))
    return managed.controllers(home(), now, launched=launched, live=any(run.alive for run in there))


def say_damage(ledger: "Ledger") -> None:
    """On standard error, what the last reading of the ledger had to put right or pass over."""
    if ledger.restored:
        click.echo(f"{ledger.path} was gone; {ledger.restored} records were put back from the runs' copies", err=True)
    if ledger.damaged:
        click.echo(f"{ledger.damaged} damaged lines of {ledger.path} were passed over", err=True)


def report_json(ledger: "Ledger", wanted: tuple[str, ...]) -> str:
    """The JSON of the report over the runs named."""
    import msgspec

    return msgspec.json.encode(build(wanted, ledger)).decode()


def _moment(text: str, now: "datetime.datetime") -> "datetime.datetime":
    """`7d`, `12h`, `90m` before now, or a day."""
    import datetime

    units = {"d": "days", "h": "hours", "m": "minutes", "w": "weeks"}
    try:
        if text[-1:] in units:
            return now - datetime.timedelta(**{units[text[-1]]: float(text[:-1])})
        found = datetime.datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"'{text}' is not a time; write 7d, 12h, 90m or 2026-11-01.", param_hint="--since"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def _write_page(found: "CostReport", path: Path) -> None:
    from launcher.cost_page import page
    from launcher.errors import VlaunchError

    try:
        path.write_text(page(found), encoding="utf-8")
    except OSError as failure:
        raise VlaunchError(f"The page {path} cannot be written: {failure.strerror}.") from failure
    click.echo(f"wrote {path}")
