"""The ways a recipe can run, each simulated with the very policy that will run it: dollars, hours, preemptions, risk.
Pure: markets are recorded ones or made up by a seed, so a plan comes out the same again.
"""

import statistics
from collections.abc import Sequence

import msgspec

from launcher.errors import OfferError
from launcher.recipe import Recipe
from launcher.speed import Kind, Measured, Speed, speed
from market.availability import Market
from market.least_cost import PATIENCE
from market.modelled import modelled
from market.offers import Offer
from market.policies import OURS, named
from market.policy import Policy
from market.replay import HOUR, Run, replay
from market.replay import Job as ReplayJob
from market.storage import CLOUDS, rates
from train.memory import ACCELERATOR_GB, fits

RESTART_MINUTES = 6.0
"""From asking for a machine to training on it."""
MOST_ZONES = 6
"""Of one way: the cheapest."""
BYTES_PER_PARAMETER = 12
"""Of a checkpoint: weights and AdamW's state in fp32."""
RUNS = 20
"""Simulated for each of the fast, likely and slow hours."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is asked for."""

    spot: bool = True
    deadline_hours: float | None = None
    budget_usd: float | None = None
    seed: int = 0
    recorded: list[Market] = []
    """Availability to simulate on instead of a modelled one; the offers' prices hold."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Over the simulated runs."""

    expected: float
    p10: float
    p90: float


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of machine in one cloud, over its cheapest zones."""

    cloud: str
    accelerator: str
    accelerator_count: int
    nodes: int
    spot: bool
    places: list[str]
    usd_per_hour: float
    """Of the cheapest place, all nodes."""
    usd: Spread
    usd_storage_and_egress: float
    """Within `usd`, expected."""
    hours: Spread
    preemptions: float
    chance_in_time: float
    hours_lost: float
    """Work done again, and starting up."""
    usd_on_demand: Spread | None
    """The same machine on demand throughout."""
    runs: int
    seed: int
    price_source: str
    price_date: str
    assumptions: list[str]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe's whole job on one offer, as if nothing interrupted it."""

    usd: float
    hours: float
    speed: str
    """Where the hours come from, for a person."""


def priced(recipe: Recipe, offers: Sequence[Offer], known: dict[Kind, Measured]) -> list[tuple[Offer, Job]]:
    """The offers on which the recipe fits, by dollars of its whole job. Raises OfferError where there is none."""
    found = []
    for offer in offers:
        pace = speed(recipe, offer, known)
        if pace is not None and not _unfit(recipe, offer):
            usd = pace.hours[1] * offer.usd_per_hour * recipe.machine.nodes
            found.append((offer, Job(usd=usd, hours=pace.hours[1], speed=pace.said)))
    if not found:
        raise OfferError("The recipe fits on none of these offers, or says no tokens to reckon with.")
    return sorted(found, key=lambda each: (each[1].usd, each[0].place, each[0].instance_type))


def ways(recipe: Recipe, offers: Sequence[Offer], known: dict[Kind, Measured], ask: Ask, *, most: int = 5) -> list[Way]:
    """The best ways, the least expected dollars first. Raises OfferError where nothing fits, where the deadline cannot
    be met even on demand, or where the budget is under the cheapest.
    """
    groups: dict[tuple[str, str, int], list[Offer]] = {}
    for offer in offers:
        if not offer.warning:
            groups.setdefault((offer.cloud, offer.accelerator, offer.accelerator_count), []).append(offer)
    rough: list[tuple[float, int, list[Offer], Speed]] = []
    unfit: list[str] = []
    for group in groups.values():
        wanted = [offer for offer in group if offer.spot == ask.spot]
        pace = speed(recipe, group[0], known)
        if not wanted or pace is None:
            continue
        why_not = _unfit(recipe, group[0])
        if why_not:
            unfit.append(why_not)
            continue
        rough.append((min(offer.usd_per_hour for offer in wanted) * pace.hours[1], len(rough), group, pace))
    if not rough:
        unknown = (
            "The recipe does not say how many tokens it has (data.tokens_per_epoch), so no dollars can be reckoned."
        )
        raise OfferError(unfit[0] if unfit else unknown)
    rough.sort(key=lambda each: each[:2])
    in_time = [each for each in rough if _in_time(each[3], ask)]
    if not in_time:
        fastest = min(rough, key=lambda each: each[3].hours[1])
        lacking = fastest[3].hours[1] + RESTART_MINUTES / 60 - (ask.deadline_hours or 0)
        machine = fastest[2][0]
        raise OfferError(
            f"The deadline of {ask.deadline_hours:.1f} hours is {lacking:.1f} hours too short even on demand: the "
            f"fastest way, {machine.accelerator}:{machine.accelerator_count} in {machine.cloud}, takes about "
            f"{fastest[3].hours[1]:.1f}."
        )
    found = [simulate(recipe, group, pace, ask) for _, _, group, pace in in_time[:most]]
    found.sort(key=lambda way: (way.usd.expected, way.cloud, way.accelerator))
    if ask.budget_usd is not None and found[0].usd.expected > ask.budget_usd:
        best = found[0]
        raise OfferError(
            f"The budget of ${ask.budget_usd:,.2f} is under the cheapest way: "
            f"{best.accelerator}:{best.accelerator_count} in {best.cloud} costs about "
            f"${best.usd.expected:,.2f} ({best.price_source}, {best.price_date})."
        )
    return found


def simulate(recipe: Recipe, group: Sequence[Offer], pace: Speed, ask: Ask) -> Way:
    """One way: the policy through many markets, for the fast, likely and slow hours of its work. Raises OfferError
    where it cannot be done in time."""
    offers = sorted((o for o in group if o.spot == ask.spot), key=lambda o: (o.usd_per_hour, o.place))[:MOST_ZONES]
    demand = min((o.usd_per_hour for o in group if not o.spot), default=None)
    nodes = recipe.machine.nodes
    costs = _Costs(recipe, offers)
    runs: list[Run] = []
    on_demand: list[float] = []
    for hours in pace.hours:
        deadline = ask.deadline_hours or PATIENCE * hours
        if hours + RESTART_MINUTES / 60 > deadline:
            continue  # not even on demand; chance_in_time counts it
        job = costs.job(hours, deadline)
        if demand is not None:
            paid = hours + RESTART_MINUTES / 60
            on_demand.append(paid * demand * nodes + costs.storage_usd(paid))
        if not ask.spot:
            runs.append(_steady(hours, offers[0].usd_per_hour))
            continue
        for at in range(RUNS):
            where = _market(offers, demand, deadline, ask, at)
            runs.append(replay(OURS, _policy(), where, msgspec.structs.replace(job, start_tick=_start(where, job, at))))
    if not runs:
        raise OfferError(
            f"The deadline of {ask.deadline_hours:.1f} hours cannot be met: {offers[0].accelerator}:"
            f"{offers[0].accelerator_count} in {offers[0].cloud} takes at least {pace.hours[0]:.1f} even on demand."
        )
    extra = [costs.storage_usd(run.finished_hours or 0.0) for run in runs]
    dollars = [run.usd * nodes + usd for run, usd in zip(runs, extra, strict=True)]
    possible = len(runs) / (len(pace.hours) * (RUNS if ask.spot else 1))
    return Way(
        cloud=offers[0].cloud, accelerator=offers[0].accelerator, accelerator_count=offers[0].accelerator_count,
        nodes=nodes, spot=ask.spot, places=[offer.place for offer in offers],
        usd_per_hour=offers[0].usd_per_hour * nodes,
        usd=_spread(dollars), usd_storage_and_egress=statistics.fmean(extra),
        hours=_spread([run.finished_hours or 0.0 for run in runs]),
        preemptions=statistics.fmean(run.preemptions for run in runs),
        chance_in_time=possible * statistics.fmean(run.met_deadline for run in runs),
        hours_lost=statistics.fmean(run.hours_lost + run.starts * RESTART_MINUTES / 60 for run in runs),
        usd_on_demand=_spread(on_demand) if on_demand else None,
        runs=len(runs), seed=ask.seed, price_source=offers[0].price_source, price_date=offers[0].price_date,
        assumptions=_assumptions(recipe, pace, ask, costs),
    )  # fmt: skip


class _Costs:
    """Of checkpoints: keeping them in a bucket and carrying them to another region."""

    def __init__(self, recipe: Recipe, offers: Sequence[Offer]) -> None:
        scheme = recipe.checkpoints.store.partition("://")[0]
        clouds = {offer.cloud for offer in offers}
        self.cloud = CLOUDS.get(scheme) or ("gcp" if clouds == {"gcp"} else "aws")
        self.rates = rates()[self.cloud]
        self.gigabytes = recipe.model.parameters * BYTES_PER_PARAMETER
        self.kept = recipe.checkpoints.keep
        self.every = recipe.checkpoints.expected_seconds(self.gigabytes)
        inside = self.rates.usd_per_gb_region if clouds == {self.cloud} else None
        self.usd_per_gigabyte = self.rates.usd_per_gb_out if inside is None else inside
        self.move_usd = self.gigabytes * self.usd_per_gigabyte / recipe.machine.nodes

    def storage_usd(self, hours: float) -> float:
        return self.kept * self.gigabytes * (self.rates.usd_per_gb_month or 0.0) * hours / 730

    def job(self, work_hours: float, deadline_hours: float) -> ReplayJob:
        return ReplayJob(
            work_seconds=round(work_hours * 60) * 60,
            deadline_seconds=round(deadline_hours * HOUR),
            restart_seconds=round(RESTART_MINUTES * 60),
            checkpoint_seconds=round(self.every),
            move_usd=self.move_usd,
        )


def _policy() -> Policy:
    return named(OURS)


def _steady(hours: float, usd_per_hour: float) -> Run:
    """On demand: nothing happens."""
    paid = hours + RESTART_MINUTES / 60
    return Run(
        market="on demand", policy="on-demand", start_hours=0.0, usd=paid * usd_per_hour, finished_hours=paid,
        met_deadline=True, starts=1, preemptions=0, hours_spot=0.0, hours_on_demand=paid, hours_idle=0.0,
        hours_lost=0.0,
    )  # fmt: skip


def _market(offers: Sequence[Offer], demand: float | None, deadline: float, ask: Ask, at: int) -> Market:
    """The offers' zones with modelled availability, or a recorded market's availability at the offers' prices."""
    dear = demand if demand is not None else 2 * max(offer.usd_per_hour for offer in offers)
    named_zones = [(offer.zone or offer.region, offer.usd_per_hour) for offer in offers]
    if not ask.recorded:
        return modelled(named_zones, on_demand_usd_per_hour=dear, hours=deadline + 1, seed=1000 * ask.seed + at)
    recorded = ask.recorded[at % len(ask.recorded)]
    zones = [
        msgspec.structs.replace(trace, name=name, usd_per_hour=[usd] * recorded.ticks, on_demand_usd_per_hour=dear)
        for (name, usd), trace in zip(named_zones, recorded.zones, strict=False)
    ]
    return msgspec.structs.replace(recorded, zones=zones)


def _start(market: Market, job: ReplayJob, at: int) -> int:
    """Spread over what is recorded beyond the deadline."""
    free = market.ticks - job.deadline_seconds // market.tick_seconds - 1
    if free < 0:
        raise OfferError(f"{market.name} is shorter than the deadline of {job.deadline_seconds / HOUR:.1f} hours.")
    return free * at // RUNS


def _in_time(pace: Speed, ask: Ask) -> bool:
    return ask.deadline_hours is None or pace.hours[1] + RESTART_MINUTES / 60 <= ask.deadline_hours


def _unfit(recipe: Recipe, offer: Offer) -> str:
    """Why the recipe does not fit on the machine; empty where it does."""
    gigabytes = ACCELERATOR_GB.get(offer.accelerator)
    if gigabytes is None:
        return ""
    world = offer.accelerator_count * recipe.machine.nodes
    if recipe.train.global_batch % (world * recipe.train.micro_batch):
        return (
            f"{offer.accelerator}:{offer.accelerator_count}: a global batch of {recipe.train.global_batch} does not "
            f"divide by {world} x {recipe.train.micro_batch}."
        )
    found = fits(recipe.model, recipe.train, world, gigabytes, recipe.lora)
    return "" if found.fits else f"{offer.accelerator}:{offer.accelerator_count}: {found.sentence()}"


def _spread(values: Sequence[float]) -> Spread:
    ordered = sorted(values)
    last = len(ordered) - 1
    return Spread(expected=statistics.fmean(ordered), p10=ordered[round(0.1 * last)], p90=ordered[round(0.9 * last)])


def _assumptions(recipe: Recipe, pace: Speed, ask: Ask, costs: _Costs) -> list[str]:
    said = [pace.said, f"{RESTART_MINUTES:g} minutes from asking for a machine to training"]
    if ask.spot:
        where = ", ".join(market.name for market in ask.recorded) or "zones modelled by recorded spells, independent"
        said.append(f"availability: {where}; seed {ask.seed}")
        said.append(f"a commit every {costs.every:.0f} s; work since the last is done again")
        if ask.deadline_hours is None:
            said.append(f"no deadline: up to {PATIENCE:g} times the work's hours are allowed")
    said.append(
        f"{costs.kept} checkpoints of {costs.gigabytes:.0f} GB in a bucket of {costs.cloud} at "
        f"${costs.rates.usd_per_gb_month:g} a GB and month, also while idle; ${costs.usd_per_gigabyte:g} a GB to read "
        f"one elsewhere ({costs.rates.source}, read {costs.rates.read})"
    )
    return said
