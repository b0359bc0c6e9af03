"""Recorded markets from files: JSON a zone, folders of them, and counts of machines in CSV. The edge; strict: what is
missing, negative or of doubtful polarity is a sentence, never a guess.
"""

import csv
import datetime
import itertools
from pathlib import Path

import msgspec

from market.availability import Market, ZoneTrace
from market.errors import MarketError

MOST_FILLED = 0.02
"""Share of probes that may be missing from a CSV of counts; the last count holds meanwhile, and it is said."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How to read: what the caller states, because files do not."""

    available_when: int
    """0: an entry of 0 is available and 1 is not. 1 or more: an entry of at least that is available, be it a yes or
    a count of machines."""
    spot_usd_per_hour: float | None = None
    """Instead of the file's."""
    on_demand_usd_per_hour: float | None = None


class _PriceInfo(msgspec.Struct):
    price: float | None = None
    on_demand_price: float | None = None


class _Metadata(msgspec.Struct):
    gap_seconds: float
    start_time: str | None = None
    zone: str | None = None
    price_info: _PriceInfo = msgspec.field(default_factory=_PriceInfo)


class _File(msgspec.Struct):
    metadata: _Metadata
    data: list[int | None]
    prices: list[float | None] = []


def read(path: Path, given: str, reading: Reading) -> Market:
    """The market at `path`: a JSON file is one zone, a folder of them several, a CSV of counts several. `given` is
    the path as the caller wrote it, the market's name. Raises MarketError.
    """
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise MarketError(f"{path} has no .json file in it, so it is no recorded market.")
        return _together(given, [_zone_file(file, reading) for file in files])
    if not path.exists():
        raise MarketError(f"There is no recorded market at {path}.")
    if path.suffix == ".csv":
        return _counts(path, given, reading)
    return _together(given, [_zone_file(path, reading)])


class _Zone(msgspec.Struct, frozen=True):
    trace: ZoneTrace
    tick_seconds: int
    start: datetime.datetime | None
    path: Path


def _together(given: str, zones: list[_Zone]) -> Market:
    """One market of zones that were recorded over the same time."""
    first = zones[0]
    notes = []
    for zone in zones[1:]:
        if zone.tick_seconds != first.tick_seconds:
            raise MarketError(
                f"{zone.path} has ticks of {zone.tick_seconds} seconds and {first.path} of {first.tick_seconds}; the "
                "zones of one market need the same."
            )
        if zone.start and first.start and abs((zone.start - first.start).total_seconds()) > first.tick_seconds:
            raise MarketError(f"{zone.path} begins at {zone.start} and {first.path} at {first.start}; cut one of them.")
    ticks = min(len(zone.trace.available) for zone in zones)
    if any(len(zone.trace.available) > ticks for zone in zones):
        notes.append(f"{given}: cut to the {ticks} ticks that every zone has")
    return Market(
        name=given,
        tick_seconds=first.tick_seconds,
        zones=[
            msgspec.structs.replace(
                zone.trace, available=zone.trace.available[:ticks], usd_per_hour=zone.trace.usd_per_hour[:ticks]
            )
            for zone in zones
        ],
        begins_utc_hour=_hour(first.start),
        notes=notes,
    )


def _zone_file(path: Path, reading: Reading) -> _Zone:
    file = _decode(path)
    hole = next((at for at, entry in enumerate(file.data) if entry is None), None)
    if hole is not None:
        raise MarketError(
            f"{path} has a hole: entry {hole} of data is null. Cut the record there or fill it knowingly."
        )
    if not file.data:
        raise MarketError(f"{path} has no entry in data.")
    usd, on_demand = _prices(path, file, reading, len(file.data))
    return _Zone(
        trace=ZoneTrace(
            name=file.metadata.zone or path.stem.partition("_")[0],
            available=[_available(path, at, entry, reading) for at, entry in enumerate(file.data) if entry is not None],
            usd_per_hour=usd,
            on_demand_usd_per_hour=on_demand,
        ),
        tick_seconds=_tick(path, file.metadata.gap_seconds),
        start=_start(path, file.metadata.start_time),
        path=path,
    )


def _decode(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as failure:
        raise MarketError(f"{path} cannot be read: {failure.strerror}.") from None
    except msgspec.DecodeError as failure:
        raise MarketError(f"{path} is not a recorded zone: {failure}.") from None


def _available(path: Path, at: int, entry: int, reading: Reading) -> bool:
    if entry < 0:
        raise MarketError(f"{path}: entry {at} of data is {entry}; it must be 0 or more.")
    if reading.available_when == 0:
        if entry > 1:
            raise MarketError(f"{path}: entry {at} of data is {entry}, a count; --available-when 0 is for 0 and 1.")
        return entry == 0
    return entry >= reading.available_when


def _prices(path: Path, file: _File, reading: Reading, ticks: int) -> tuple[list[float], float]:
    """Spot a tick, and on demand: the caller's, else the file's. Raises MarketError where neither has one."""
    info = file.metadata.price_info
    on_demand = reading.on_demand_usd_per_hour if reading.on_demand_usd_per_hour is not None else info.on_demand_price
    if on_demand is None:
        raise MarketError(f"{path} has no on-demand price; give --on-demand-price.")
    _positive(path, "the on-demand price", on_demand)
    if reading.spot_usd_per_hour is not None:
        prices: list[float | None] = [reading.spot_usd_per_hour]
    else:
        prices = file.prices or [info.price]
    if prices == [None]:
        raise MarketError(f"{path} has no spot price; give --spot-price.")
    if len(prices) not in (1, ticks):
        raise MarketError(f"{path} has {len(prices)} prices for {ticks} ticks; there must be one, or one each.")
    known = []
    for at, price in enumerate(prices):
        if price is None:
            raise MarketError(f"{path} has a hole: entry {at} of prices is null.")
        known.append(_positive(path, f"entry {at} of prices", price))
    return known * (ticks if len(known) == 1 else 1), on_demand


def _positive(path: Path, what: str, usd: float) -> float:
    if not usd > 0 or usd == float("inf"):
        raise MarketError(f"{path}: {what} is {usd:g}; a price must be above 0.")
    return usd


def _tick(path: Path, seconds: float) -> int:
    if seconds < 1 or seconds != int(seconds):
        raise MarketError(f"{path}: gap_seconds is {seconds:g}; it must be a whole number of seconds, at least 1.")
    return int(seconds)


def _start(path: Path, text: str | None) -> datetime.datetime | None:
    if text is None:
        return None
    try:
        start = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise MarketError(f"{path}: start_time '{text}' is not a time like 2026-12-01T08:00:00+00:00.") from None
    return start if start.tzinfo else start.replace(tzinfo=datetime.UTC)


def _hour(start: datetime.datetime | None) -> float | None:
    if start is None:
        return None
    utc = start.astimezone(datetime.UTC)
    return utc.hour + utc.minute / 60 + utc.second / 3600


_COLUMNS = ("scheduled_at", "zone", "created")


def _counts(path: Path, given: str, reading: Reading) -> Market:
    """A row a zone and probe: how many machines started. Prices are the caller's, or those of ZONE_*.json beside."""
    by_zone: dict[str, dict[datetime.datetime, int]] = {}
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (rows.fieldnames or [])]
            if missing:
                raise MarketError(f"{path} has no column {', '.join(missing)}; it needs {', '.join(_COLUMNS)}.")
            for number, row in enumerate(rows, 2):
                try:
                    at = datetime.datetime.fromisoformat(row["scheduled_at"])
                    by_zone.setdefault(row["zone"], {})[at] = int(row["created"])
                except (TypeError, ValueError):
                    raise MarketError(
                        f"{path} line {number}: no time, zone and count in {list(row.values())}."
                    ) from None
    except OSError as failure:
        raise MarketError(f"{path} cannot be read: {failure.strerror}.") from None
    times = sorted({at for probes in by_zone.values() for at in probes})
    if len(times) < 2:
        raise MarketError(f"{path} has fewer than two probes.")
    gaps = [round((later - at).total_seconds()) for at, later in itertools.pairwise(times)]
    tick = max(set(gaps), key=gaps.count)
    ticks = round((times[-1] - times[0]).total_seconds() / tick) + 1
    filled = {zone: _fill(path, zone, probes, times[0], tick, ticks) for zone, probes in sorted(by_zone.items())}
    zones = [_counted_zone(path, zone, counts, tick, reading) for zone, (counts, _) in filled.items()]
    market = _together(given, zones)
    most = max(holes for _, holes in filled.values())
    notes = [f"{given}: {most} of {ticks} probes are missing; the count before holds meanwhile"] if most else []
    return msgspec.structs.replace(market, begins_utc_hour=_hour(times[0]), notes=notes)


def _fill(
    path: Path, zone: str, probes: dict[datetime.datetime, int], first: datetime.datetime, tick: int, ticks: int
) -> tuple[list[int], int]:
    """Counts a tick, and how many were missing. Raises MarketError where that is too many."""
    counts: list[int | None] = [None] * ticks
    for at, count in probes.items():
        counts[round((at - first).total_seconds() / tick)] = count
    holes = counts.count(None)
    if holes > MOST_FILLED * ticks or counts[0] is None:
        raise MarketError(f"{path} has holes: {zone} lacks {holes} of {ticks} probes. Cut the record to a whole part.")
    known: list[int] = []
    for entry in counts:
        known.append(known[-1] if entry is None else entry)
    return known, holes


def _counted_zone(path: Path, zone: str, counts: list[int], tick: int, reading: Reading) -> _Zone:
    beside = sorted(path.parent.glob(f"{zone}_*.json")) or sorted(path.parent.glob(f"{zone}.json"))
    file = _decode(beside[0]) if beside else _File(metadata=_Metadata(gap_seconds=tick), data=[])
    if len(file.prices) > 1:
        file.prices = []  # recorded over other ticks: the one price of its metadata holds
    usd, on_demand = _prices(beside[0] if beside else path, file, reading, len(counts))
    available = [_available(path, at, count, reading) for at, count in enumerate(counts)]
    trace = ZoneTrace(name=zone, available=available, usd_per_hour=usd, on_demand_usd_per_hour=on_demand)
    return _Zone(trace, tick, None, path)
