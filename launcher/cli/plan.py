"""`vlaunch plan`: what a recipe would cost, how long it takes and what can go wrong, before a dollar is spent."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from launcher.recipe import Recipe
    from launcher.speed import Kind, Measured
    from launcher.ways import Ask, Way
    from market.offers import Offer

LOOSER = (1.1, 1.25, 1.5, 2.0, 3.0)
"""Deadlines of the plot, in times of the work's hours."""


@click.command()
@click.argument("recipe", required=False)
@click.option("--spot/--on-demand", default=True, show_default=True, help="Spot machines, or ones that stay.")
@click.option("--deadline", metavar="30h|2026-12-01T08:00Z", help="Hours from now, or a time (UTC unless it says).")
@click.option("--budget", type=float, metavar="USD", help="Refuse where the cheapest way costs more.")
@click.option("--infra", metavar="INFRA", help="Where, in SkyPilot's words: aws, gcp/us-central1, ...")
@click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value of the recipe.")
@click.option("--any-accelerator", is_flag=True, help="Other machines than the recipe names compete too.")
@click.option(
    "--trace",
    "traces",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Simulate on this recorded market; may be given again. Default: availability is modelled.",
)
@click.option("--available-when", type=click.IntRange(min=0), metavar="0|1|COUNT", help="What --trace's entries mean.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same plan.")
@click.option("--plot/--no-plot", default=True, show_default=True, help="Dollars against the deadline.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; the keys are in docs/market.md.")
def plan(
    recipe: str | None, spot: bool, deadline: str | None, budget: float | None, infra: str | None,
    changes: tuple[str, ...], any_accelerator: bool, traces: tuple[Path, ...], available_when: int | None, seed: int,
    plot: bool, as_json: bool,
) -> None:  # fmt: skip
    """Dollars, hours and risk of the best ways to run a RECIPE (default vicuna-7b), simulated with the very policy."""
    import msgspec

    from launcher.cli.market import recorded
    from launcher.recipe import DEFAULT, load
    from launcher.ways import Ask, ways

    named = load(recipe or DEFAULT, changes)
    ask = Ask(
        spot=spot,
        deadline_hours=hours_from_now(deadline, datetime.datetime.now(datetime.UTC)) if deadline else None,
        budget_usd=budget,
        seed=seed,
        recorded=recorded(traces, available_when) if traces else [],
    )
    known = earlier_runs()
    offers = candidates(named.recipe, infra, any_accelerator=any_accelerator)
    found = ways(named.recipe, offers, known, ask)
    if as_json:
        click.echo(msgspec.json.encode({"recipe": named.name, "ways": found}).decode())
        return
    _show(named.name, found, ask)
    if plot and spot:
        _plot(named.recipe, offers, known, ask, found[0])


def candidates(recipe: "Recipe", infra: str | None, *, any_accelerator: bool) -> "list[Offer]":
    """Offers, spot and on demand, of the recipe's accelerators or of all whose speed is known; with the recipe's own
    places."""
    from launcher.errors import RecipeError
    from launcher.plan import accelerators, own_offers
    from launcher.speed import PEAK_TFLOPS
    from market import prices
    from market.offers import select

    if not recipe.machine.accelerators:
        raise RecipeError("The recipe asks for no accelerator; it is made for --infra local, which costs nothing.")
    every = [*own_offers(recipe), *prices.offers()]
    wanted = accelerators(recipe)
    if any_accelerator:
        wanted = sorted({(o.accelerator, o.accelerator_count) for o in every if o.accelerator in PEAK_TFLOPS})
    return select(every, accelerators=wanted, spot=None, infra=infra)


def earlier_runs() -> "dict[Kind, Measured]":
    """Speeds of the runs in the ledger; a run whose store cannot be read is passed over and said."""
    from checkpoints.stores import StoreError
    from launcher import runs
    from launcher.ledger import Ledger, home
    from launcher.speed import measured

    facts = []
    for run_id, records in Ledger(home()).runs().items():
        if any(record.facts.get("simulated") for record in records if record.kind == "run"):
            continue
        try:
            facts.append(runs.facts(records))
        except StoreError as failure:
            click.echo(f"the speed of {run_id} is passed over: {failure}", err=True)
    return measured(facts)


def hours_from_now(text: str, now: datetime.datetime) -> float:
    """`30h`, or a time in ISO 8601."""
    try:
        if text.endswith("h"):
            hours = float(text[:-1])
        else:
            at = datetime.datetime.fromisoformat(text)
            hours = ((at if at.tzinfo else at.replace(tzinfo=datetime.UTC)) - now).total_seconds() / 3600
    except ValueError:
        raise click.BadParameter(f"'{text}' is not a deadline; write 30h or 2026-12-01T08:00Z.") from None
    if not hours > 0:
        raise click.BadParameter(f"'{text}' is in the past.")
    return hours


def chosen_line(way: "Way") -> str:
    """One way in one line: what `vlaunch train` shows before it asks."""
    nodes = f"{way.nodes} x " if way.nodes > 1 else ""
    beside = f"; on demand about ${way.usd_on_demand.expected:,.0f}" if way.usd_on_demand else ""
    return (
        f"{nodes}{way.accelerator}:{way.accelerator_count} {'on spot' if way.spot else 'on demand'} in {way.cloud}: "
        f"about ${way.usd.expected:,.0f} (${way.usd.p10:,.0f} to ${way.usd.p90:,.0f}) in "
        f"{way.hours.expected:.1f} hours ({way.hours.p10:.1f} to {way.hours.p90:.1f}), "
        f"{way.preemptions:.1f} preemptions{beside}"
    )


def show_simulated(
    recipe: "Recipe", offers: "Sequence[Offer]", on_demand: "Offer | None", deadline_hours: float | None
) -> None:
    """The line of the first offer's kind of machine, to standard error; nothing where hours cannot be reckoned."""
    from launcher.speed import speed
    from launcher.ways import Ask, simulate

    first = offers[0]
    group = [o for o in offers if (o.cloud, o.accelerator) == (first.cloud, first.accelerator)]
    pace = speed(recipe, first, earlier_runs())
    if pace is not None:
        ask = Ask(spot=first.spot, deadline_hours=deadline_hours)
        way = simulate(recipe, [*group, *([on_demand] if on_demand else [])], pace, ask)
        click.echo(f"chosen: {chosen_line(way)}; simulated {way.runs} times, seed {way.seed}", err=True)


def _show(name: str, found: "list[Way]", ask: "Ask") -> None:
    from launcher.cli.tables import Column, console, fitted

    columns = (
        Column("machine", number=False), Column("where", 3, number=False), Column("$/hour", 5), Column("dollars"),
        Column("10% to 90%", 1), Column("hours", 1), Column("preempted", 4), Column("in time", 2),
        Column("hours lost", 6), Column("on demand", 2),
    )  # fmt: skip
    rows = [
        (
            f"{way.nodes} x {way.accelerator}:{way.accelerator_count}",
            way.places[0] + (f" and {len(way.places) - 1} more" if len(way.places) > 1 else ""),
            f"{way.usd_per_hour:.2f}", f"{way.usd.expected:,.0f}", f"{way.usd.p10:,.0f} to {way.usd.p90:,.0f}",
            f"{way.hours.expected:.1f}", f"{way.preemptions:.1f}", f"{way.chance_in_time:.0%}", f"{way.hours_lost:.1f}",
            f"{way.usd_on_demand.expected:,.0f}" if way.usd_on_demand else "no price",
        )
        for way in found
    ]  # fmt: skip
    screen = console()
    title = f"{name}: the best ways, of {found[0].runs} simulated runs each"
    screen.print(fitted(columns, rows, screen.width, title))
    for source in sorted({f"{way.price_source}, {way.price_date}" for way in found}):
        screen.print(f"prices: {source}")
    for assumption in found[0].assumptions:
        screen.print(f"assumed: {assumption}")
    if ask.deadline_hours is not None:
        screen.print(f"deadline: {ask.deadline_hours:.1f} hours from now")


def _plot(recipe: "Recipe", offers: "list[Offer]", known: "dict[Kind, Measured]", ask: "Ask", best: "Way") -> None:
    """Dollars of the best way against the deadline, as bars."""
    import msgspec

    from launcher.speed import speed
    from launcher.ways import simulate

    group = [
        offer for offer in offers
        if not offer.warning
        and (offer.cloud, offer.accelerator, offer.accelerator_count)
        == (best.cloud, best.accelerator, best.accelerator_count)
    ]  # fmt: skip
    pace = speed(recipe, group[0], known)
    if pace is None:
        return
    click.echo(f"\ndollars of {best.accelerator}:{best.accelerator_count} in {best.cloud} against the deadline")
    most = best.usd_on_demand.expected if best.usd_on_demand else best.usd.p90
    for times in LOOSER:
        way = simulate(recipe, group, pace, msgspec.structs.replace(ask, deadline_hours=times * pace.hours[2]))
        bar = "█" * max(1, round(40 * way.usd.expected / most))
        click.echo(f"{times * pace.hours[2]:7.1f} h  {bar} {way.usd.expected:,.0f}")
    if best.usd_on_demand:
        click.echo(f"on demand  {'█' * 40} {most:,.0f}")
