"""Plans: the published case, ranking by the whole job, seeds, deadlines and budgets."""

from typing import Any

import msgspec
import pytest

from launcher.errors import OfferError
from launcher.ledger import Record
from launcher.machines import RunFacts
from launcher.recipe import Recipe, load
from launcher.speed import measured, speed
from launcher.ways import Ask, priced, simulate, ways
from market.offers import Offer


def offer(usd: float, *, spot: bool, zone: str = "us-a", accelerator: str = "A100-80GB", count: int = 8) -> Offer:
    return Offer(
        cloud="gcp", region="us-central1", zone=zone, instance_type="a2-ultragpu-8g", accelerator=accelerator,
        accelerator_count=count, usd_per_hour=usd, spot=spot, price_source="the prices of 2023", price_date="2023-03",
    )  # fmt: skip


PUBLISHED = [*(offer(12.64, spot=True, zone=zone) for zone in ("us-a", "us-c", "eu-a")), offer(40.24, spot=False)]
"""The machine was to be had in several zones at one price."""


@pytest.mark.parametrize(("name", "on_spot", "on_demand"), [("vicuna-7b", 140, 500), ("vicuna-13b", 300, 1000)])
def test_the_published_runs_of_2023_come_out_at_their_dollars(name: str, on_spot: float, on_demand: float) -> None:
    recipe = load(name).recipe
    (spot,) = ways(recipe, PUBLISHED, {}, Ask(spot=True))
    (demand,) = ways(recipe, PUBLISHED, {}, Ask(spot=False))
    likely = speed(recipe, PUBLISHED[0], {})
    assert likely is not None
    assert spot.usd.expected == pytest.approx(on_spot, rel=0.15)
    assert likely.hours[1] * 40.24 == pytest.approx(on_demand, rel=0.15)
    assert demand.usd.expected == pytest.approx(on_demand, rel=0.15)


def small(**changes: Any) -> Recipe:
    """A job of an hour or so."""
    recipe = load("vicuna-7b").recipe
    return msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, tokens_per_epoch=20_000_000))


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    first, again, other = (ways(small(), PUBLISHED, {}, Ask(seed=seed, deadline_hours=3.0)) for seed in (1, 1, 2))
    assert first == again
    assert first[0].usd != other[0].usd
    assert first[0].usd.p10 <= first[0].usd.expected <= first[0].usd.p90


def test_a_way_that_cannot_be_done_in_time_is_one_sentence() -> None:
    recipe = load("vicuna-7b").recipe
    pace = speed(recipe, PUBLISHED[0], {})
    assert pace is not None
    with pytest.raises(OfferError, match=r"deadline of 2\.0 hours cannot be met: A100-80GB:8 in gcp takes at least"):
        simulate(recipe, PUBLISHED, pace, Ask(deadline_hours=2.0))


def test_machines_are_ranked_by_the_whole_job_not_by_the_hour() -> None:
    offers = [offer(12.0, spot=True), offer(20.0, spot=True, accelerator="H100"), offer(2.0, spot=True, count=1)]
    ranked = [(each.accelerator, each.accelerator_count) for each, _ in priced(small(), offers, {})]
    assert ranked == [("H100", 8), ("A100-80GB", 8)]  # one GPU is too small for it


def test_a_deadline_that_cannot_be_met_says_by_how_much() -> None:
    with pytest.raises(OfferError, match=r"deadline of 0\.5 hours is 0\.\d hours too short even on demand"):
        ways(small(), PUBLISHED, {}, Ask(deadline_hours=0.5))


def test_a_budget_under_the_cheapest_way_says_what_it_costs_and_whose_price_it_is() -> None:
    with pytest.raises(OfferError, match=r"budget of \$5\.00 is under .* about \$\d.*the prices of 2023, 2023-03"):
        ways(small(), PUBLISHED, {}, Ask(budget_usd=5.0))


def test_the_speed_of_earlier_runs_replaces_the_assumption_and_says_how_many() -> None:
    facts = {"base": "huggyllama/llama-7b", "nodes": 1, "offers": [msgspec.to_builtins(PUBLISHED[0])]}
    run = RunFacts(
        run_id="r", records=[Record(kind="run", at="2026-11-25T00:00:00Z", run_id="r", facts=facts)], events=[],
        metrics=[{"tokens_per_second": 20_000.0}] * 3, alive=False,
    )  # fmt: skip
    found = speed(small(), PUBLISHED[0], measured([run]))
    assert found is not None
    assert found.hours[1] == pytest.approx(60e6 / 20_000 / 3600)
    assert "as 1 earlier run(s) on A100-80GB:8" in found.said
