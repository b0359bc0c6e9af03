"""Prices read anew from SkyPilot's catalog: its real reader on files in its real layout, written for these tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from market.catalog import read
from market.errors import MarketError

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone\n"
)
GCP = COLUMNS + (
    "a2-highgpu-8g,,,96,680,,3.5,1.0,us-central1,us-central1-a\n"
    "a2-highgpu-8g,,,96,680,,3.5,1.0,us-central1,us-central1-b\n"  # no accelerators are listed there
    ",A100,8,,,,20.0,9.0,us-central1,us-central1-a\n"
    "a3-highgpu-8g,,,208,1872,,9.0,,us-east4,us-east4-a\n"
    ",H100,8,,,,80.0,30.0,us-east4,us-east4-a\n"
    "n2-standard-8,,,8,32,,0.4,0.1,us-central1,us-central1-a\n"
)
AWS = COLUMNS + (
    "p4d.24xlarge,A100,8.0,96,1152,,32.0,9.5,us-east-1,use1-az6\n"
    "p4d.24xlarge,A100,8.0,96,1152,,32.0,32.0,us-east-1,use1-az2\n"
    "p4d.24xlarge,A100,8.0,96,1152,,32.0,,us-east-1,use1-az4\n"
    "m5.large,,,2,8,,0.1,0.03,us-east-1,use1-az6\n"
)


def test_host_and_accelerators_of_one_zone_are_added_up_and_a_blank_is_not_a_price(tmp_path: Path) -> None:
    (tmp_path / "vms.csv").write_text(GCP)
    found = read(tmp_path / "vms.csv", "gcp", "a day")
    assert [(o.accelerator, o.accelerator_count, o.zone, o.spot, o.usd_per_hour) for o in found] == [
        ("A100", 8, "us-central1-a", True, 10.0),
        ("A100", 8, "us-central1-a", False, 23.5),
        ("H100", 8, "us-east4-a", False, 89.0),
    ]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", COLUMNS + "p4d,A100,8,96,1152,,much,,us-east-1,use1-az6\n"])
def test_a_catalog_that_cannot_be_read_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "vms.csv").write_text(text)
    if not text:
        assert read(tmp_path / "vms.csv", "aws", "a day") == []
        return
    with pytest.raises(MarketError, match=r"cannot be read: .* Delete it and refresh again"):
        read(tmp_path / "vms.csv", "aws", "a day")


def test_refreshed_prices_take_the_place_of_the_snapshots_and_say_their_day(tmp_path: Path) -> None:
    folder = tmp_path / ".sky" / "catalogs" / "v8" / "aws"
    folder.mkdir(parents=True)
    (folder / "vms.csv").write_text(AWS)

    def vlaunch(*words: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "HOME": str(tmp_path), "VLAUNCH_HOME": str(tmp_path / "home")}
        return subprocess.run(
            [sys.executable, "-m", "launcher", *words], cwd=ROOT, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    done = vlaunch("market", "refresh", "--cloud", "aws", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["cloud"], row["offers"], row["suspected"]) == ("aws", 5, 1)
    assert "not fetched" in row["price_date"]  # a file without SkyPilot's checksum is the user's own
    listed = vlaunch("market", "offers", "--accelerator", "A100:8", "--spot", "--cloud", "aws", "--json")
    offers = json.loads(listed.stdout)["offers"]
    assert [(each["zone"], each["usd_per_hour"]) for each in offers] == [("use1-az6", 9.5)]
    assert offers[0]["price_source"] == "SkyPilot's catalog of aws"
    assert "gcp" in vlaunch("market", "offers", "--accelerator", "A100:8", "--spot", "--json").stdout
    refused = vlaunch("market", "refresh", "--cloud", "mars")
    assert refused.returncode == 2
    assert "mars; known are aws" in refused.stderr
