"""Dollars as lines: what a report consists of, added up to the cent however it is grouped. Pure.

Amounts are whole cents held in floats; a sum is rounded to cents again, which is exact below a trillion dollars.
"""

import csv
import datetime
import io
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

GROUPS = ("run", "zone", "day", "owner", "accelerator", "what")
Group = Literal["run", "zone", "day", "owner", "accelerator", "what"]


class CostLine(msgspec.Struct, frozen=True, kw_only=True):
    """Some dollars, for what, where and when."""

    subject: str
    """The run, service or evaluation."""
    what: str
    """`machine`, `storage`, `egress`, `controller`, `judge`."""
    part: str
    """Of a machine's dollars: `work`, `starting up`, `done again`, `late detection`; else what it is in words."""
    attempt: int | None = None
    owner: str = ""
    zone: str = ""
    accelerator: str = ""
    started_at: str
    ended_at: str | None
    """None while it goes on."""
    usd: float | None
    """None where the price is not known."""
    price_source: str
    """With its day."""
    estimated: bool = False
    """Whether quantity or price is reckoned rather than recorded."""
    simulated: bool = False


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """A group's dollars."""

    key: str
    usd: float | None
    estimated: bool
    simulated: bool


def cents(usd: float) -> float:
    """Whole cents; never minus zero."""
    return round(usd, 2) + 0.0


def total(parts: Iterable[float | None]) -> float | None:
    """None where one part is not known: a total that leaves something out would lie."""
    known = []
    for part in parts:
        if part is None:
            return None
        known.append(part)
    return cents(sum(known))


def split(usd: float, weights: Sequence[float]) -> list[float]:
    """`usd` in as many parts as there are weights, in their proportion, each in whole cents, adding up exactly."""
    whole = sum(weights)
    if whole <= 0:
        return [usd, *[0.0] * (len(weights) - 1)]
    target = round(usd * 100)
    exact = [target * (weight / whole) for weight in weights]
    parts = [int(each) for each in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: (parts[index] - exact[index], index))
    for index in by_remainder[: target - sum(parts)]:
        parts[index] += 1
    return [part / 100 for part in parts]


def grouped(lines: Iterable[CostLine], by: Group, now: datetime.datetime) -> list[Sum]:
    """The dollars of each run, zone, day (UTC), owner, accelerator or kind; the dearest first, days in order."""
    groups: dict[str, list[CostLine]] = {}
    for line in lines:
        for key, part in _by_day(line, now) if by == "day" else [(_key(line, by), line)]:
            groups.setdefault(key, []).append(part)
    sums = [
        Sum(
            key=key,
            usd=total(line.usd for line in each),
            estimated=any(line.estimated for line in each),
            simulated=any(line.simulated for line in each),
        )
        for key, each in groups.items()
    ]
    return sorted(sums, key=lambda each: each.key if by == "day" else (-(each.usd or 0.0), each.key))


def _key(line: CostLine, by: Group) -> str:
    if by == "what":
        return line.what if line.part == "work" or line.what != "machine" else f"machine, {line.part}"
    value = {"run": line.subject, "zone": line.zone, "owner": line.owner, "accelerator": line.accelerator}[by]
    return value or f"no {by}"


def _by_day(line: CostLine, now: datetime.datetime) -> list[tuple[str, CostLine]]:
    """The line in pieces, one a UTC day, by the share of its time that lies in each."""
    begin = datetime.datetime.fromisoformat(line.started_at).astimezone(datetime.UTC)
    end = datetime.datetime.fromisoformat(line.ended_at).astimezone(datetime.UTC) if line.ended_at else now
    pieces: list[tuple[str, float]] = []
    while True:
        midnight = datetime.datetime.combine(begin.date() + datetime.timedelta(days=1), datetime.time(), datetime.UTC)
        pieces.append((begin.date().isoformat(), (min(midnight, end) - begin).total_seconds()))
        if midnight >= end:
            break
        begin = midnight
    usd = [None] * len(pieces) if line.usd is None else split(line.usd, [max(0.0, share) for _, share in pieces])
    return [(day, msgspec.structs.replace(line, usd=part)) for (day, _), part in zip(pieces, usd, strict=True)]


def to_csv(lines: Iterable[CostLine]) -> str:
    """One row a line under the fields' names; dollars with two digits, empty where unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CostLine.__struct_fields__)
    for line in lines:
        fields = msgspec.structs.asdict(line)
        fields["usd"] = "" if line.usd is None else f"{line.usd:.2f}"
        writer.writerow("" if value is None else value for value in fields.values())
    return text.getvalue()
