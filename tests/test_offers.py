import pytest

from market import prices
from market.errors import MarketError
from market.offers import Offer, select, suspect


def offer(usd: float, *, spot: bool = True, zone: str = "a", accelerator: str = "A100", cloud: str = "aws") -> Offer:
    return Offer(
        cloud=cloud, region="r", zone=zone, instance_type="big", accelerator=accelerator, accelerator_count=8,
        usd_per_hour=usd, spot=spot, price_source="a test", price_date="2026-11-23",
    )  # fmt: skip


def warnings(*offers: Offer) -> list[str]:
    return [each.warning for each in suspect(offers)]


def test_spot_at_the_price_of_on_demand_is_suspected() -> None:
    assert warnings(offer(10.0, spot=False), offer(9.99)) == ["", "spot costs as much as on demand"]
    assert warnings(offer(10.0, spot=False), offer(9.0)) == ["", ""]


def test_a_price_far_under_its_siblings_is_suspected() -> None:
    found = warnings(*(offer(usd, zone=zone) for zone, usd in zip("abcd", (10, 11, 10, 4), strict=True)))
    assert found == ["", "", "", "40% of what the same machine costs elsewhere in aws"]


def test_spot_at_a_tenth_of_on_demand_is_suspected() -> None:
    assert "too little to be true" in warnings(offer(30.0, spot=False), offer(3.0))[1]


def test_suspected_prices_are_never_chosen_silently() -> None:
    offers = suspect([offer(10.0, spot=False), offer(9.99), offer(8.0, spot=False, zone="b"), offer(4.0, zone="b")])
    chosen = select(offers, accelerators=[("A100", 8)], spot=True, infra=None)
    assert [each.zone for each in chosen] == ["b"]
    with pytest.raises(MarketError, match=r"Every price of A100:8, zone a is suspected \(spot costs as much"):
        select(offers, accelerators=[("A100", 8)], spot=True, infra=None, zones=["a"])


def test_the_order_is_by_price_and_does_not_depend_on_the_input() -> None:
    offers = [offer(9.0, zone="c"), offer(8.0, zone="b"), offer(8.0, zone="a")]
    for each in (offers, offers[::-1]):
        assert [o.zone for o in select(each, accelerators=[("A100", 8)], spot=True, infra="aws/r")] == ["a", "b", "c"]


def test_an_unknown_accelerator_names_its_neighbour() -> None:
    with pytest.raises(MarketError, match=r"called 'A1000'\. Did you mean A100"):
        select([offer(8.0)], accelerators=[("A1000", 8)], spot=True, infra=None)


def test_a_price_below_every_offer_shows_the_cheapest() -> None:
    with pytest.raises(MarketError, match=r"at or below \$1.00 an hour; the cheapest is \$8.00 in aws/r/a \(a test"):
        select([offer(8.0)], accelerators=[("A100", 8)], spot=True, infra=None, max_usd_per_hour=1.0)


def test_an_infra_is_a_whole_word() -> None:
    with pytest.raises(MarketError, match="There is no offer of A100:8 on spot in aw;"):
        select([offer(8.0)], accelerators=[("A100", 8)], spot=True, infra="aw")


def test_every_price_of_the_snapshot_has_a_source_and_a_day() -> None:
    offers = prices.offers()
    assert len(offers) > 1000
    assert all(each.usd_per_hour > 0 and each.price_source and "2026-11-23" in each.price_date for each in offers)
    assert all(each.warning for each in offers if each.cloud == "runpod" and each.spot)
