"""A file of SkyPilot's catalog (`vms.csv` of one cloud) as offers. The edge to that file's layout."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from market.errors import MarketError
from market.offers import Offer

Row = dict[str, str]

_GCP_HOSTS = {"a2-highgpu": "A100", "a2-megagpu": "A100", "a2-ultragpu": "A100-80GB", "a3-highgpu": "H100",
              "a3-megagpu": "H100-MEGA"}  # fmt: skip
"""Hosts that are listed without their accelerators, which have rows of their own: the price is the sum."""
_GCP_HOST = re.compile(r"^(a\d-\w+gpu)-(\d+)g$")


def read(path: Path, cloud: str, day: str) -> list[Offer]:
    """Every machine with an accelerator in the catalog of `cloud`; blank prices are left out. Raises MarketError."""
    source = f"SkyPilot's catalog of {cloud}"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [offer for row in _whole(rows, cloud) for offer in _offers(row, cloud, source, day)]
    except (OSError, UnicodeDecodeError, KeyError, ValueError) as failure:
        raise MarketError(f"The catalog {path} cannot be read: {failure!r}. Delete it and refresh again.") from None


def _whole(rows: list[Row], cloud: str) -> Iterator[Row]:
    """Rows of whole machines: on Google Cloud host and accelerators of one zone are added up."""
    if cloud != "gcp":
        yield from (row for row in rows if row["AcceleratorName"] and row["InstanceType"])
        return
    parts = {
        (row["AcceleratorName"], _count(row), row["AvailabilityZone"]): row
        for row in rows
        if row["AcceleratorName"] and not row["InstanceType"]
    }
    for row in rows:
        host = _GCP_HOST.match(row["InstanceType"])
        if host is None or host[1] not in _GCP_HOSTS:
            continue
        accelerator, count = _GCP_HOSTS[host[1]], int(host[2])
        part = parts.get((accelerator, count, row["AvailabilityZone"]))
        if part is not None:
            prices = {key: _sum(row[key], part[key]) for key in ("Price", "SpotPrice")}
            yield row | prices | {"AcceleratorName": accelerator, "AcceleratorCount": str(count)}


def _offers(row: Row, cloud: str, source: str, day: str) -> Iterator[Offer]:
    for column, spot in (("SpotPrice", True), ("Price", False)):
        if row.get(column):
            yield Offer(
                cloud=cloud,
                region=row["Region"],
                zone=row.get("AvailabilityZone") or None,
                instance_type=row["InstanceType"],
                accelerator=row["AcceleratorName"],
                accelerator_count=_count(row),
                usd_per_hour=float(row[column]),
                spot=spot,
                price_source=source,
                price_date=day,
            )


def _count(row: Row) -> int:
    return int(float(row["AcceleratorCount"]))


def _sum(host: str, part: str) -> str:
    """A blank part makes the sum blank: it is not nothing that is not known."""
    return str(float(host) + float(part)) if host and part else ""
