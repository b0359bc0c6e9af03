"""`vlaunch market`: offers, and policies against recorded markets."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli import Group

if TYPE_CHECKING:
    from launcher.ways import Job
    from market.availability import Market
    from market.offers import Offer
    from market.replay import Run, Summary
    from market.serving import ServingRun
    from market.traces import Reading


@click.group(cls=Group)
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
@click.option("--work-hours", type=float, help="Useful work to be done.")
@click.option("--deadline-hours", type=float, help="From the start to the latest end.")
@click.option("--restart-overhead-minutes", type=float, help="From asking for a machine to useful work.")
@click.option("--start-hours", type=float, multiple=True, help="Into the record; may be given again. Default: 0.")
@click.option(
    "--history-hours",
    type=click.FloatRange(min=0),
    default=168.0,
    show_default=True,
    help="Of the record before the start, what a policy may learn from.",
)
@click.option("--on-demand-price", type=float, metavar="USD", help="An hour, instead of the file's.")
@click.option("--spot-price", type=float, metavar="USD", help="An hour, instead of the file's.")
@click.option(
    "--available-when",
    type=click.IntRange(min=0),
    metavar="0|1|COUNT",
    help="Entries that mean available: 0 where 1 means preempted; 1, or a count, where so many or more.",
)
@click.option("--checkpoint-minutes", type=float, default=0.0, help="Work between commits; 0: none is ever lost.")
@click.option("--serving", is_flag=True, help="Keep replicas ready instead: vlaunch, spothedge or on-demand.")
@click.option(
    "--replicas", type=click.IntRange(min=1), default=4, show_default=True, help="With --serving: wanted ready."
)
@click.option("--cold-start-seconds", type=float, default=120.0, show_default=True, help="With --serving: until ready.")
@click.option(
    "--availability",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.995,
    show_default=True,
    help="With --serving: share of the time with all replicas ready that is wanted.",
)
@click.option("--yes", is_flag=True, help="Believe a record whose polarity looks wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; the keys are in docs/market.md.")
def replay(
    paths: tuple[Path, ...], policies: str, work_hours: float | None, deadline_hours: float | None,
    restart_overhead_minutes: float | None, start_hours: tuple[float, ...], history_hours: float,
    on_demand_price: float | None, spot_price: float | None, available_when: int | None, checkpoint_minutes: float,
    serving: bool, replicas: int, cold_start_seconds: float, availability: float, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """What policies would have cost in recorded markets, against the exact optimum.

    A PATH is a file (one zone), a folder of files (one market of several zones), or a CSV of counts.
    """
    import msgspec

    from market.traces import Reading

    reading = Reading(
        available_when=_polarity(available_when), spot_usd_per_hour=spot_price, on_demand_usd_per_hour=on_demand_price
    )
    markets = _read(paths, reading, yes=yes)
    names = policies.split(",")
    if serving:
        served = _serve(markets, names, replicas, cold_start_seconds, availability)
        if as_json:
            click.echo(msgspec.json.encode({"runs": served}).decode())
        else:
            _show_served(served)
        return
    if work_hours is None or deadline_hours is None or restart_overhead_minutes is None:
        raise click.UsageError("Give --work-hours, --deadline-hours and --restart-overhead-minutes, or --serving.")
    runs, summary = _replay(
        markets, names, start_hours or (0.0,), work_hours=work_hours, deadline_hours=deadline_hours,
        restart_minutes=restart_overhead_minutes, checkpoint_minutes=checkpoint_minutes,
        history_hours=history_hours,
    )  # fmt: skip
    if as_json:
        click.echo(msgspec.json.encode({"runs": runs, "summary": summary}).decode())
    else:
        _show(runs, summary)


def _replay(
    markets: "list[Market]", names: list[str], starts: tuple[float, ...], **asked_for: float
) -> "tuple[list[Run], list[Summary]]":
    """Every policy in every market from every start."""
    from market.optimal import usd_optimal
    from market.policies import named
    from market.replay import job, replay, summarise

    for name in names:
        named(name)
    runs: list[Run] = []
    for each in markets:
        for start in starts:
            asked = job(each, start_hours=start, **asked_for)
            optimum = usd_optimal(each, asked)
            for name in names:
                run = replay(name, named(name), each, asked)
                run.usd_optimal = optimum
                runs.append(run)
    return runs, summarise(runs)


def _serve(
    markets: "list[Market]", names: list[str], replicas: int, cold_start_seconds: float, availability: float
) -> "list[ServingRun]":
    from market.errors import MarketError
    from market.serving import SERVING, serve

    for name in names:
        if name not in SERVING:
            raise MarketError(f"There is no serving policy '{name}'; there are {', '.join(SERVING)}.")
    return [
        serve(
            name, SERVING[name](), each, replicas=replicas, cold_start_seconds=cold_start_seconds,
            availability=availability,
        )
        for each in markets for name in names
    ]  # fmt: skip


def _show_served(runs: "list[ServingRun]") -> None:
    from launcher.cli.tables import Column, console, fitted

    columns = (
        Column("market", number=False), Column("policy", number=False), Column("ready"), Column("dollars"),
        Column("of on demand"), Column("preempted", matters=2), Column("spot h", matters=1),
        Column("on demand h", matters=1),
    )  # fmt: skip
    rows = [
        (
            _last_part(run.market), run.policy, f"{run.availability:.3%}", f"{run.usd:,.0f}",
            f"{run.usd / run.usd_on_demand:.1%}", str(run.preemptions), f"{run.hours_spot:,.0f}",
            f"{run.hours_on_demand:,.0f}",
        )
        for run in runs
    ]  # fmt: skip
    title = "time with all replicas ready, and dollars against as many on demand"
    screen = console()
    screen.print(fitted(columns, rows, screen.width, title))


def _last_part(market: str) -> str:
    """Of its path: enough for a person to tell it by."""
    return Path(market).name or market


def recorded(paths: tuple[Path, ...], available_when: int | None, *, yes: bool = False) -> "list[Market]":
    """The recorded markets at `paths`, with what their entries mean asked for where it was not said."""
    from market.traces import Reading

    return _read(paths, Reading(available_when=_polarity(available_when)), yes=yes)


@market.command()
@click.option("--accelerator", "wanted", multiple=True, metavar="NAME:COUNT", help="May be given again. Default: all.")
@click.option("--spot/--on-demand", "spot", default=None, help="Only spot, or only on demand. Default: both.")
@click.option("--cloud", metavar="CLOUD", help="Or cloud/region, or cloud/region/zone.")
@click.option("--recipe", metavar="RECIPE", help="Order by dollars of this job, and leave out what it does not fit on.")
@click.option("--suspicious", is_flag=True, help="Show prices that cannot be trusted too, marked.")
@click.option("--limit", type=click.IntRange(min=1), default=30, show_default=True, help="Rows of the table.")
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON; the keys are in docs/market.md.")
def offers(
    wanted: tuple[str, ...], spot: bool | None, cloud: str | None, recipe: str | None, suspicious: bool, limit: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Machines on offer: by dollars an hour, or with --recipe by dollars for the whole job."""
    import msgspec

    from launcher.plan import own_offers
    from launcher.recipe import load, parse_accelerator
    from launcher.ways import Job, priced
    from market import prices
    from market.offers import select

    job_of = load(recipe).recipe if recipe is not None else None
    every = [*(own_offers(job_of) if job_of else ()), *prices.offers()]
    try:
        kinds = [parse_accelerator(each) for each in wanted]
    except ValueError as failure:
        raise click.BadParameter(str(failure), param_hint="--accelerator") from None
    kinds = kinds or sorted({(offer.accelerator, offer.accelerator_count) for offer in every})
    found = select(every, accelerators=kinds, spot=spot, infra=cloud, suspicious=suspicious)
    jobs: list[Job | None] = [None] * len(found)
    if job_of is not None:
        from launcher.cli.plan import earlier_runs

        ranked = priced(job_of, found, earlier_runs())
        found, jobs = [offer for offer, _ in ranked], [job for _, job in ranked]
    if as_json:
        rows = [
            msgspec.to_builtins(offer) | ({"job": msgspec.to_builtins(job)} if job else {})
            for offer, job in zip(found, jobs, strict=True)
        ]
        click.echo(msgspec.json.encode({"offers": rows}).decode())
        return
    _offers_table(found[:limit], jobs[:limit], len(found))


@market.command()
@click.option("--cloud", "clouds", multiple=True, help="Only this cloud; may be given again.")
@click.option("--json", "as_json", is_flag=True, help="Print what was read, a row a cloud.")
def refresh(clouds: tuple[str, ...], as_json: bool) -> None:
    """Read prices from SkyPilot's catalog, fetched anew where there is a network.

    They are kept in VLAUNCH_HOME and used instead of the snapshot's of the same cloud. The JSON has cloud, offers,
    suspected and price_date.
    """
    import msgspec

    from launcher.skypilot import catalog
    from market import prices
    from market.catalog import read
    from market.offers import suspect

    known = sorted({offer.cloud for offer in prices.offers()})
    if unknown := set(clouds) - set(known):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; known are {', '.join(known)}.", param_hint="--cloud")
    found = {}
    rows = []
    for cloud in clouds or known:
        path, day = catalog(cloud)
        found[cloud] = read(path, cloud, day)
        doubted = sum(bool(offer.warning) for offer in suspect(found[cloud]))
        rows.append({"cloud": cloud, "offers": len(found[cloud]), "suspected": doubted, "price_date": day})
    prices.refresh(found)
    if as_json:
        click.echo(msgspec.json.encode(rows).decode())
        return
    for row in rows:
        click.echo(f"{row['cloud']}: {row['offers']} prices, {row['suspected']} suspected; {row['price_date']}")


def _offers_table(found: "Sequence[Offer]", jobs: "Sequence[Job | None]", total: int) -> None:
    from launcher.cli.tables import Column, console, fitted

    with_jobs = any(jobs)
    columns = (
        Column("place", number=False), Column("machine", number=False), Column("", 1, number=False), Column("$/hour"),
        *((Column("job $"), Column("job hours", 2)) if with_jobs else ()), Column("why it is doubted", 3, number=False),
    )  # fmt: skip
    rows = [
        (
            offer.place, f"{offer.accelerator}:{offer.accelerator_count}", "spot" if offer.spot else "on demand",
            f"{offer.usd_per_hour:.2f}", *([f"{job.usd:,.0f}", f"{job.hours:.1f}"] if job else [""] * 2 * with_jobs),
            offer.warning,
        )
        for offer, job in zip(found, jobs, strict=True)
    ]  # fmt: skip
    screen = console()
    screen.print(fitted(columns, rows, screen.width, f"{len(found)} of {total} offers, the cheapest first"))
    for source in sorted({f"{offer.price_source}, {offer.price_date}" for offer in found}):
        screen.print(f"prices: {source}")


def _polarity(available_when: int | None) -> int:
    if available_when is not None:
        return available_when
    if not sys.stdin.isatty():
        raise click.UsageError(
            "Say what an entry means with --available-when: 0 where 1 means preempted, "
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
    from launcher.cli.tables import Column, console, fitted

    screen = console()
    if len(runs) <= 40:
        columns = (
            Column("market", number=False), Column("from hour", matters=1), Column("policy", number=False),
            Column("dollars"), Column("optimal"), Column("hours"), Column("starts", matters=2),
            Column("spot", matters=3), Column("on demand", matters=3), Column("idle", matters=4),
        )  # fmt: skip
        rows = []
        for run in runs:
            hours = "unfinished" if run.finished_hours is None else f"{run.finished_hours:.2f}"
            late = "" if run.met_deadline else " late"
            rows.append((
                _last_part(run.market), f"{run.start_hours:g}", run.policy, f"{run.usd:.2f}", f"{run.usd_optimal:.2f}",
                hours + late, str(run.starts), f"{run.hours_spot:.1f}", f"{run.hours_on_demand:.1f}",
                f"{run.hours_idle:.1f}",
            ))  # fmt: skip
        screen.print(fitted(columns, rows, screen.width, "runs"))
    ratios = [
        (
            line.policy, str(line.runs), f"{line.mean_ratio:.3f}", f"{line.p95_ratio:.3f}", f"{line.worst_ratio:.3f}",
            str(line.late),
        )
        for line in summary
    ]  # fmt: skip
    names = ("runs", "mean", "p95", "worst", "late")
    policies = (Column("policy", number=False), *(Column(name) for name in names))
    screen.print(fitted(policies, ratios, screen.width, "dollars against the exact optimum"))
