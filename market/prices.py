"""Where offers come from: the dated snapshot in this package, and what `vlaunch market refresh` has read of SkyPilot's
catalog since. The edge to the world; it decides nothing.
"""

import csv
import functools
import os
import tomllib
from pathlib import Path

import msgspec
import platformdirs

from market.errors import MarketError
from market.offers import Offer, suspect

SNAPSHOT = Path(__file__).parent / "snapshot"


def refreshed_file() -> Path:
    """Where refreshed offers are kept, beside what else vlaunch knows."""
    return Path(os.environ.get("VLAUNCH_HOME") or platformdirs.user_data_dir("vlaunch")) / "prices.json"


def refresh(offers_of: dict[str, list[Offer]]) -> None:
    """Keep these offers of each cloud in place of the snapshot's. Raises MarketError."""
    path = refreshed_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(msgspec.json.encode(_refreshed() | offers_of))
        partial.replace(path)
    except OSError as failure:
        raise MarketError(f"The prices in {path} cannot be written: {failure.strerror}.") from failure
    offers.cache_clear()


@functools.cache
def offers() -> list[Offer]:
    """Every offer, spot and on demand, with suspected prices marked: of each cloud the refreshed ones where there are
    any, else the snapshot's. Raises MarketError."""
    newer = _refreshed()
    kept = [offer for offer in _snapshot() if offer.cloud not in newer]
    return suspect([*kept, *(offer for each in newer.values() for offer in each)])


def _refreshed() -> dict[str, list[Offer]]:
    path = refreshed_file()
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, list[Offer]])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as failure:
        raise MarketError(f"The prices in {path} cannot be read: {failure}. Delete it to use the snapshot.") from None


def _snapshot() -> list[Offer]:
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
    return found
