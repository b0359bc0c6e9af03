"""`vlaunch market`: offers, and policies against recorded markets."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from market.availability import Market
    from market.replay import Run, Summary
    from market.traces import Reading


@click.group()
def market() -> None:
    """What compute costs, and what policies make of recorded markets."""


@market.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option(
    "--policy",
    "policies",
    default="vlaunch",
    show_default=True,
    metavar="NAME[,NAME...]",
    help="vlaunch, on-demand, greedy, uniform-progress, slack, failover, eager-next-region, skynomad, spothedge.",
)
@click.option("--work-hours", type=float, required=True, help="Useful work to be done.")
@click.option("--deadline-hours", type=float, required=True, help="From the start to the latest end.")
@click.option("--restart-overhead-minutes", type=float, required=True, help="From asking for a machine to useful work.")
@click.option("--start-hours", type=float, multiple=True, help="Into the record; may be given again. Default: 0.")
@click.option("--on-demand-price", type=float, metavar="USD", help="An hour, instead of the file's.")
@click.option("--spot-price", type=float, metavar="USD", help="An hour, instead of the file's.")
@click.option(
    "--available-when",
    type=click.IntRange(min=0),
    metavar="0|1|COUNT",
    help="Entries that mean available: 0 where 1 means preempted; 1, or a count, where so many or more.",
)
@click.option("--checkpoint-minutes", type=float, default=0.0, help="Work between commits; 0: none is ever lost.")
@click.option("--yes", is_flag=True, help="Believe a record whose polarity looks wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; the keys are in docs/market.md.")
def replay(
    paths: tuple[Path, ...], policies: str, work_hours: float, deadline_hours: float, restart_overhead_minutes: float,
    start_hours: tuple[float, ...], on_demand_price: float | None, spot_price: float | None,
    available_when: int | None, checkpoint_minutes: float, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """What policies would have cost in recorded markets, against the exact optimum.

    A PATH is a file (one zone), a folder of files (one market of several zones), or a CSV of counts.
    """
    import msgspec

    from market.optimal import usd_optimal
    from market.policies import named
    from market.replay import job, summarise
    from market.replay import replay as run_through
    from market.traces import Reading

    names = policies.split(",")
    for name in names:
        named(name)
    reading = Reading(
        available_when=_polarity(available_when), spot_usd_per_hour=spot_price, on_demand_usd_per_hour=on_demand_price
    )
    runs: list[Run] = []
    for each in _read(paths, reading, yes=yes):
        for start in start_hours or (0.0,):
            asked = job(
                each, work_hours=work_hours, deadline_hours=deadline_hours, restart_minutes=restart_overhead_minutes,
                checkpoint_minutes=checkpoint_minutes, start_hours=start,
            )  # fmt: skip
            optimum = usd_optimal(each, asked)
            for name in names:
                run = run_through(name, named(name), each, asked)
                run.usd_optimal = optimum
                runs.append(run)
    summary = summarise(runs)
    if as_json:
        click.echo(msgspec.json.encode({"runs": runs, "summary": summary}).decode())
    else:
        _show(runs, summary)


def _polarity(available_when: int | None) -> int:
    if available_when is not None:
        return available_when
    if not sys.stdin.isatty():
        raise click.UsageError(
            "Say what an entry means with --available-when: 0 where 1 means preempted (../shared/traces), "
            "1 where 1 means available, or how many machines are needed where entries are counts."
        )
    answer: int = click.prompt("Which entry means available: 0, 1, or a count of machines", type=click.IntRange(min=0))
    return answer


def _read(paths: tuple[Path, ...], reading: "Reading", *, yes: bool) -> "list[Market]":
    from market.availability import doubtful
    from market.errors import MarketError
    from market.traces import read

    markets = [read(path, str(path), reading) for path in paths]
    for each in markets:
        for note in each.notes:
            click.echo(note, err=True)
    why = doubtful(markets)
    if why and not yes:
        if not sys.stdin.isatty():
            raise MarketError(f"{why}; if it is right as it is, say --yes.")
        click.confirm(f"{why}. Is it right as it is?", abort=True)
    return markets


def _show(runs: "list[Run]", summary: "list[Summary]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="dollars against the exact optimum", title_justify="left")
    for heading in ("policy", "runs", "mean", "p95", "worst", "late"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for line in summary:
        ratios = (line.mean_ratio, line.p95_ratio, line.worst_ratio)
        table.add_row(line.policy, str(line.runs), *(f"{ratio:.3f}" for ratio in ratios), str(line.late))
    console = Console()
    if len(runs) <= 40:
        each = Table(title="runs", title_justify="left")
        for heading in (
            "market",
            "from hour",
            "policy",
            "dollars",
            "optimal",
            "hours",
            "starts",
            "spot",
            "on demand",
            "idle",
        ):
            each.add_column(heading, overflow="fold", justify="left" if heading in ("market", "policy") else "right")
        for run in runs:
            hours = "unfinished" if run.finished_hours is None else f"{run.finished_hours:.2f}"
            late = "" if run.met_deadline else " late"
            each.add_row(
                run.market, f"{run.start_hours:g}", run.policy, f"{run.usd:.2f}", f"{run.usd_optimal:.2f}",
                hours + late, str(run.starts), f"{run.hours_spot:.1f}", f"{run.hours_on_demand:.1f}",
                f"{run.hours_idle:.1f}",
            )  # fmt: skip
        console.print(each)
    console.print(table)
