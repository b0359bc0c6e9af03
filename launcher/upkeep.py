"""What a run's checkpoints cost beside its machines: being kept in a bucket, and being carried between a bucket and
machines elsewhere. Reckoned from the sizes and moments of its saves, so every line is marked estimated. Pure.
"""

import datetime

import msgspec

from launcher.lines import CostLine, cents
from launcher.machines import Facts, Machine, RunFacts, time_of
from market.storage import GIGABYTE, Rates

_HOURS_A_MONTH = 730
_CLOUDLESS = ("local", "slurm", "ssh", "kubernetes", "k8s")
"""Infra whose network nobody bills by the gigabyte to us."""


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run's checkpoints are kept, as it was when the run was launched."""

    place: str
    """`aws/us-east-1`; `aws` where the region is not known."""
    keep: int
    """So many of the newest checkpoints are kept."""
    rates: dict[str, Rates]
    """By cloud."""

    @property
    def cloud(self) -> str:
        return self.place.partition("/")[0]

    @property
    def source(self) -> str:
        return _source(self.rates[self.cloud])


def bucket_of(run: RunFacts) -> Bucket | None:
    """Recorded at the launch; None where no cloud bills the store."""
    about = next((record.facts.get("bucket") for record in run.records if record.kind == "run"), None)
    return None if about is None else msgspec.convert(about, Bucket)


def upkeep(run: RunFacts, had: list[Machine], now: datetime.datetime) -> list[CostLine]:
    """The lines of a run; none under half a cent."""
    bucket = bucket_of(run)
    saves = _saves(run) if bucket else []
    if bucket is None or not saves:
        return []
    lines = [_storage(run, bucket, saves, now)]
    lines += [line for machine in had if (line := _egress(run, bucket, saves, machine)) is not None]
    return [line for line in lines if line.usd]


def notes(run: RunFacts, had: list[Machine]) -> list[str]:
    """What the lines leave out, and what goes on costing after the run."""
    bucket = bucket_of(run)
    saves = _saves(run) if bucket else []
    if bucket is None or not saves:
        return []
    found = []
    if not run.alive:
        gigabytes = sum(save["bytes"] for save in saves[-bucket.keep :]) / GIGABYTE
        usd = gigabytes * (bucket.rates[bucket.cloud].usd_per_gb_month or 0.0)
        found.append(
            f"its last checkpoints, {gigabytes:,.1f} GB, cost about ${usd:,.2f} a month until they are deleted "
            f"({bucket.source}); that is not in the total"
        )
    unknown = {machine.place for machine in had if _per_gigabyte(bucket, machine.place) is None}
    if unknown:
        found.append(f"traffic between {', '.join(sorted(unknown))} and {bucket.place} has no known price, not counted")
    return found


def _saves(run: RunFacts) -> list[Facts]:
    return [event for event in run.events if event["event"] == "save_committed"]


def _storage(run: RunFacts, bucket: Bucket, saves: list[Facts], now: datetime.datetime) -> CostLine:
    """Each checkpoint from its commit until as many newer ones as are kept have come, or until the run ended."""
    ends = [record.at for record in run.records if record.kind == "ended"]
    over = now if run.alive else time_of(max([run.events[-1]["at"], *ends], key=time_of))
    moments = [time_of(save["at"]) for save in saves]
    until = [*moments[bucket.keep :], *[over] * bucket.keep][: len(saves)]
    gigabyte_hours = sum(
        save["bytes"] / GIGABYTE * max(0.0, (end - begin).total_seconds() / 3600)
        for save, begin, end in zip(saves, moments, until, strict=True)
    )
    per_month = bucket.rates[bucket.cloud].usd_per_gb_month or 0.0
    return _line(
        run, bucket, "storage", f"checkpoints: {gigabyte_hours:,.1f} GB hours", saves[0]["at"],
        None if run.alive else over.isoformat(), gigabyte_hours / _HOURS_A_MONTH * per_month,
    )  # fmt: skip


def _egress(run: RunFacts, bucket: Bucket, saves: list[Facts], machine: Machine) -> CostLine | None:
    """What a machine read from the bucket when it went on, and what it saved there."""
    rates = _per_gigabyte(bucket, machine.place)
    if rates is None or rates == (0.0, 0.0):
        return None
    begin, until = machine.begin, machine.until
    events = [event for event in run.events if begin <= time_of(event["at"]) <= until]
    began_at = {event["step"] for event in events if event["event"] == "training_started" and event["step"]}
    sizes = {save["step"]: save["bytes"] for save in saves}
    read = sum(sizes.get(step, 0) for step in began_at) / GIGABYTE
    written = sum(event["bytes"] for event in events if event["event"] == "save_committed") / GIGABYTE
    part = f"checkpoints: {read:,.1f} GB read from {bucket.place}, {written:,.1f} GB written"
    return msgspec.structs.replace(
        _line(
            run, bucket, "egress", part, begin.isoformat(), None if machine.running else until.isoformat(),
            read * rates[0] + written * rates[1],
        ),
        attempt=machine.number, zone=machine.place,
    )  # fmt: skip


def _per_gigabyte(bucket: Bucket, place: str) -> tuple[float, float] | None:
    """Reading and writing, in dollars a gigabyte: whoever sends bytes away pays. None where that is not known."""
    if f"{place}/".startswith(f"{bucket.place}/") and "/" in bucket.place:
        return 0.0, 0.0
    cloud, _, region = place.partition("/")
    rates = bucket.rates[bucket.cloud]
    if cloud == bucket.cloud:
        # A single region's name has a dash in every cloud; a bucket in "us" lies in several.
        known = region and "-" in bucket.place and rates.usd_per_gb_region is not None
        return (rates.usd_per_gb_region or 0.0,) * 2 if known else None
    if cloud in _CLOUDLESS:
        return rates.usd_per_gb_out, 0.0
    return (rates.usd_per_gb_out, bucket.rates[cloud].usd_per_gb_out) if cloud in bucket.rates else None


def _line(run: RunFacts, bucket: Bucket, what: str, part: str, begin: str, end: str | None, usd: float) -> CostLine:
    about = next((record.facts for record in run.records if record.kind == "run"), {})
    return CostLine(
        subject=run.run_id, what=what, part=part, owner=about.get("owner", ""), zone=bucket.place,
        started_at=begin, ended_at=end, usd=cents(usd), price_source=bucket.source, estimated=True,
    )  # fmt: skip


def _source(rates: Rates) -> str:
    return f"{rates.source}, read {rates.read}"
