"""Recorded markets from files: strict, and never guessing."""

import json
from pathlib import Path
from typing import Any

import pytest

from market.availability import availability, doubtful
from market.errors import MarketError
from market.traces import Reading, read

PREEMPTED_IS_1 = Reading(available_when=0)


def zone_file(folder: Path, name: str = "us-east-1a", **changes: Any) -> Path:
    file: dict[str, Any] = {
        "metadata": {"gap_seconds": 600, "price_info": {"price": 1.0, "on_demand_price": 3.0}},
        "data": [0, 1, 0, 0],
        "prices": [1.0],
    }
    path = folder / f"{name}_v100_1.json"
    path.write_text(json.dumps(file | changes))
    return path


def test_the_caller_says_what_an_entry_means(tmp_path: Path) -> None:
    path = zone_file(tmp_path, data=[0, 1, 3, 8])
    counted = read(path, "x", Reading(available_when=3)).zones[0]
    assert counted.available == [False, False, True, True]
    with pytest.raises(MarketError, match="entry 2 of data is 3, a count"):
        read(path, "x", PREEMPTED_IS_1)
    binary = zone_file(tmp_path)
    assert read(binary, "x", PREEMPTED_IS_1).zones[0].available == [True, False, True, True]
    assert read(binary, "x", Reading(available_when=1)).zones[0].available == [False, True, False, False]


def test_a_folder_is_one_market_of_its_zones(tmp_path: Path) -> None:
    zone_file(tmp_path, "us-east-1a")
    zone_file(tmp_path, "us-east-1b", data=[0, 0, 0, 0, 1])
    found = read(tmp_path, "here", PREEMPTED_IS_1)
    assert ([zone.name for zone in found.zones], found.ticks) == (["us-east-1a", "us-east-1b"], 4)
    assert found.notes == ["here: cut to the 4 ticks that every zone has"]


def test_prices_given_take_the_place_of_the_files(tmp_path: Path) -> None:
    path = zone_file(tmp_path, metadata={"gap_seconds": 600}, prices=[])
    with pytest.raises(MarketError, match="has no on-demand price; give --on-demand-price"):
        read(path, "x", PREEMPTED_IS_1)
    given = Reading(available_when=0, spot_usd_per_hour=2.0, on_demand_usd_per_hour=5.0)
    zone = read(path, "x", given).zones[0]
    assert (zone.usd_per_hour, zone.on_demand_usd_per_hour) == ([2.0] * 4, 5.0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data": [0, None, 0]}, "has a hole: entry 1 of data is null"),
        ({"data": []}, "has no entry in data"),
        ({"data": [0, -1]}, "entry 1 of data is -1"),
        ({"prices": [1.0, -2.0, 1.0, 1.0]}, "entry 1 of prices is -2; a price must be above 0"),
        ({"prices": [1.0, None, 1.0, 1.0]}, "has a hole: entry 1 of prices is null"),
        ({"prices": [1.0, 1.0]}, "has 2 prices for 4 ticks"),
        ({"metadata": {"gap_seconds": 0}}, "gap_seconds is 0"),
        ({"data": "0101"}, "is not a recorded zone"),
    ],
)
def test_what_is_wrong_with_a_file_is_a_sentence(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    path = zone_file(tmp_path, **changes)
    with pytest.raises(MarketError, match=complaint):
        read(path, "x", Reading(available_when=0, on_demand_usd_per_hour=3.0))


def test_zones_of_different_ticks_are_no_market(tmp_path: Path) -> None:
    zone_file(tmp_path, "us-east-1a")
    zone_file(tmp_path, "us-east-1b", metadata={"gap_seconds": 300, "price_info": {"price": 1, "on_demand_price": 3}})
    with pytest.raises(MarketError, match=r"has ticks of 300 seconds and .* of 600"):
        read(tmp_path, "x", PREEMPTED_IS_1)


def test_a_market_that_is_always_there_or_never_is_doubted(tmp_path: Path) -> None:
    path = zone_file(tmp_path, data=[0] * 500)
    assert "available 100.0% of the time" in doubtful([read(path, "x", PREEMPTED_IS_1)])
    assert "available 0.0% of the time" in doubtful([read(path, "x", Reading(available_when=1))])
    mixed = zone_file(tmp_path, "us-east-1b")
    assert doubtful([read(path, "x", PREEMPTED_IS_1), read(mixed, "y", PREEMPTED_IS_1)]) == ""


def counts(folder: Path, minutes: range, skip: tuple[int, ...] = ()) -> Path:
    path = folder / "counts.csv"
    rows = [
        f"2025-10-03T{minute // 60:02d}:{minute % 60:02d}:00-07:00,us-east-1a,{minute // 10 % 16},16"
        for minute in minutes
        if minute not in skip
    ]
    path.write_text("\n".join(["scheduled_at,zone,created,requested", *rows]) + "\n")
    return path


def test_counts_of_machines_are_zones_with_the_prices_of_the_files_beside(tmp_path: Path) -> None:
    path = counts(tmp_path, range(0, 160, 10))
    with pytest.raises(MarketError, match="has no on-demand price"):
        read(path, "x", Reading(available_when=8))
    zone_file(tmp_path)
    found = read(path, "x", Reading(available_when=8))
    assert (found.tick_seconds, found.zones[0].available.count(True), found.ticks) == (600, 8, 16)
    assert found.begins_utc_hour == 7.0


def test_a_few_missing_probes_are_filled_and_said_and_many_are_refused(tmp_path: Path) -> None:
    zone_file(tmp_path)
    found = read(counts(tmp_path, range(0, 1000, 10), skip=(500,)), "x", Reading(available_when=1))
    assert (found.ticks, found.notes) == (100, ["x: 1 of 100 probes are missing; the count before holds meanwhile"])
    with pytest.raises(MarketError, match="us-east-1a lacks 3 of 100 probes"):
        read(counts(tmp_path, range(0, 1000, 10), skip=(500, 510, 530)), "x", Reading(available_when=1))


def test_the_real_records_are_read_whole(shared: Path) -> None:
    aws = read(shared / "traces/aws-v100x1-2023-02", "aws", PREEMPTED_IS_1)
    assert (len(aws.zones), aws.tick_seconds) == (9, 195)
    gang = read(shared / "traces/gcp-h100x16-2025-10/counts.csv", "gang", Reading(available_when=8))
    single = read(shared / "traces/gcp-h100x16-2025-10", "single", PREEMPTED_IS_1)
    assert [zone.name for zone in gang.zones] == [zone.name for zone in single.zones]
    assert sum(map(availability, gang.zones)) < sum(map(availability, single.zones))
