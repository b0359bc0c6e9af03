"""Where offers come from: the dated snapshot in this package. The edge to the world; it decides nothing."""

import csv
import functools
import tomllib
from pathlib import Path

from market.offers import Offer, suspect

SNAPSHOT = Path(__file__).parent / "snapshot"


@functools.cache
def offers() -> list[Offer]:
    """Every offer of the snapshot, spot and on demand, with suspected prices marked."""
    sources = tomllib.loads((SNAPSHOT / "sources.toml").read_text())
    found: list[Offer] = []
    with (SNAPSHOT / "offers.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for spot, column in ((True, "spot_usd_per_hour"), (False, "on_demand_usd_per_hour")):
                if not row[column]:  # a blank is not a price
                    continue
                source = sources[row["cloud"]]
                found.append(
                    Offer(
                        cloud=row["cloud"],
                        region=row["region"],
                        zone=row["zone"] or None,
                        instance_type=row["instance_type"],
                        accelerator=row["accelerator"],
                        accelerator_count=int(row["accelerator_count"]),
                        usd_per_hour=float(row[column]),
                        spot=spot,
                        price_source=f"SkyPilot's {source['catalog']} at {source['commit'][:7]}",
                        price_date=f"read {source['read']}, the catalog's own day unknown",
                    )
                )
    return suspect(found)
