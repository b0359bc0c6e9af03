"""What object stores ask for keeping and carrying bytes: the dated prices in this package. The edge to that file."""

import functools
import tomllib

import msgspec

from market.prices import SNAPSHOT

GIGABYTE = 1 << 30
"""As clouds bill it."""


CLOUDS = {"s3": "aws", "gs": "gcp"}
"""Whose buckets a URI's scheme means."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Of one cloud, in US dollars a gigabyte. None: not known."""

    usd_per_gb_month: float | None = None
    usd_per_gb_region: float | None = None
    """To another of its regions."""
    usd_per_gb_out: float
    """To anywhere else."""
    source: str
    read: str
    """The day."""


@functools.cache
def rates() -> dict[str, Rates]:
    """By cloud."""
    found = tomllib.loads((SNAPSHOT / "storage.toml").read_text())
    return msgspec.convert(found, dict[str, Rates])
