"""What is known of a run that SkyPilot runs: its launch and its controller's journal from the run's store, its state
and what was paid from SkyPilot. Where SkyPilot does not answer, what the journal says; and that is said.
"""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from checkpoints import layout
from checkpoints.stores import StoreError, open_store
from launcher import gateway_yaml, journal, skypilot
from launcher.errors import RunError, SkyPilotError
from launcher.ledger import Record
from launcher.lines import CostLine, cents

PRICE_SOURCE = "SkyPilot's records"


class Managed(msgspec.Struct, frozen=True, kw_only=True):
    """A run as SkyPilot and its own controller have it."""

    state: str
    why: str = ""
    place: str = ""
    recoveries: int = 0
    machines: list[Record] = []
    """`machine_started` and `machine_ended`, as the ledger has them of local runs."""
    journal: list[Record] = []
    """Decisions and their reasons; none where the strategy was SkyPilot's own."""
    unread: str = ""
    """Why SkyPilot could not be asked."""

    @property
    def paying(self) -> bool:
        """Whether a machine is not down yet."""
        kinds = [record.kind for record in self.machines]
        return kinds.count("machine_started") > kinds.count("machine_ended")


def announce(record: Record, store: str) -> bool:
    """Keep how a run was launched in its store, for other machines; False where the name is in use there."""
    return open_store(store).inside(record.run_id).create(layout.LAUNCH, msgspec.json.encode(record))


def launch_in(store: str, run_id: str) -> list[Record]:
    """The record of a launch in a store, as `runs.find` gives it. Raises RunError."""
    where = open_store(store)
    try:
        return [msgspec.json.decode(where.inside(run_id).read(layout.LAUNCH), type=Record)]
    except FileNotFoundError:
        found = sorted({entry.name.split("/")[0] for entry in where.list() if entry.name.endswith(f"/{layout.LAUNCH}")})
        there = f"It has {', '.join(found)}." if found else "It has none."
        raise RunError(f"There is no run '{run_id}' in {store}. {there}") from None


def look(run_id: str, store: str, events: list[dict[str, Any]], folder: Path) -> Managed:
    """The run now. What can change no more is kept in `folder` and not asked for again."""
    kept = folder / "managed.json"
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        return msgspec.json.decode(kept.read_bytes(), type=Managed)
    found = _look(run_id, store, events)
    # SkyPilot calls a job over before its machine is down, and that is paid for to the end.
    if found.state in (*skypilot.OVER, "stopped") and not found.unread and not found.paying:
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(msgspec.json.encode(found))
    return found


def controllers(folder: Path, now: datetime.datetime, *, launched: datetime.datetime, live: bool) -> list[CostLine]:
    """What SkyPilot's own controllers and our gateways cost, for all runs and services together; none where it cannot
    be asked. Kept in `folder` once it can change no more: nothing is `live`, none of them runs, and nothing was
    `launched` since."""
    kept = folder / "controllers.json"
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        if not live and kept.stat().st_mtime > launched.timestamp():
            return [_controller(each, now) for each in _PAID.decode(kept.read_bytes())]
    if skypilot.missing() or skypilot.silent():
        return []
    with contextlib.suppress(SkyPilotError):  # whoever asks of the runs says so
        found = skypilot.controllers()
        if not live and all(each.end is not None for each in found):
            kept.write_bytes(msgspec.json.encode(found))
        return [_controller(each, now) for each in found]
    return []


_PAID = msgspec.json.Decoder(list[skypilot.Incarnation])


def _controller(paid: skypilot.Incarnation, now: datetime.datetime) -> CostLine:
    end = now.timestamp() if paid.end is None else paid.end
    ours = paid.cluster.startswith(gateway_yaml.NAME)
    return CostLine(
        subject="gateway" if ours else "SkyPilot's controller",
        what="controller",
        part="its machine, for all services" if ours else "its machine, for all runs and services",
        zone=paid.place,
        started_at=_iso(paid.begin),
        ended_at=None if paid.end is None else _iso(paid.end),
        usd=cents((end - paid.begin) / 3600 * paid.usd_per_hour),
        price_source=f"{PRICE_SOURCE}, {_iso(paid.begin)[:10]}",
    )


def forget(folder: Path) -> None:
    """The run goes on: what was kept of its end holds no longer."""
    (folder / "managed.json").unlink(missing_ok=True)


def _look(run_id: str, store: str, events: list[dict[str, Any]]) -> Managed:
    records: list[Record] = []
    with contextlib.suppress(StoreError):  # who reads the events says that the store cannot be read
        records = journal.read(open_store(store).inside(run_id))
    try:
        if why := skypilot.silent():
            raise SkyPilotError(why)
        jobs = skypilot.jobs_of(run_id)
        paid = skypilot.incarnations(run_id, [job.job_id for job in jobs])
    except SkyPilotError as failure:
        machines = [record for record in records if record.kind in ("machine_started", "machine_ended")]
        return Managed(state=_by_journal(records), machines=machines, journal=records, unread=str(failure))
    if not jobs:
        return Managed(
            state="unknown", journal=records, unread=f"SkyPilot at {skypilot.endpoint()} has no job {run_id}."
        )
    job = jobs[-1]
    stopped = next((r for r in reversed(records) if r.kind in ("ended", "launched")), None)
    by_us = stopped is not None and stopped.kind == "ended" and bool(stopped.facts["why"])
    return Managed(
        state="stopped" if by_us and job.state == "failed" else job.state,
        why=stopped.facts["why"] if by_us and stopped is not None else job.why,
        place=job.place,
        recoveries=job.recoveries,
        machines=list(machines_of(run_id, paid, records, events, over=job.over)),
        journal=records,
    )


def machines_of(
    run_id: str,
    paid: list[skypilot.Incarnation],
    records: list[Record],
    events: list[dict[str, Any]],
    *,
    over: bool,
) -> list[Record]:
    """SkyPilot's stretches of paid time as machines, but for clusters that never ran: nobody pays for what was
    not to be had. Why each ended is the journal's to say, else the trainer's."""
    found = []
    refused = list(_refused(records))
    ran = [each for each in paid if not any(asked <= each.begin < said for asked, said in refused)]
    for number, each in enumerate(ran, start=1):
        found.append(started(run_id, number, each, PRICE_SOURCE))
        if each.end is None:
            continue
        inside = [event for event in events if _iso(each.begin) <= event["at"] <= _iso(each.end)]
        reason, preempted = _ending(each, records, inside, last=over and number == len(ran))
        facts: dict[str, Any] = {"machine": number, "reason": reason, "preempted": preempted}
        if preempted and inside:
            facts["lost_at"] = inside[-1]["at"]
        found.append(record(run_id, "machine_ended", each.end, **facts))
    return found


def started(run_id: str, number: int, paid: skypilot.Incarnation, source: str) -> Record:
    """The record of a machine by what was paid for it; `source` is who says the price."""
    return record(
        run_id, "machine_started", paid.begin,
        machine=number, place=paid.place, usd_per_hour=paid.usd_per_hour, accelerator=paid.accelerator,
        price_source=f"{source}, {_iso(paid.begin)[:10]}", spot=paid.spot,
    )  # fmt: skip


def _refused(records: list[Record]) -> Iterator[tuple[float, float]]:
    """When a machine was asked for and when it was refused; a cluster that began in between never ran. SkyPilot's begin
    at whole seconds, so each is up to one too early."""
    asked = 0.0
    for record in records:
        if record.kind == "decision":
            asked = journal.Journal.seconds(record.at)
        elif record.kind == "refused":
            yield asked - 1, journal.Journal.seconds(record.at) - 1


def _ending(
    paid: skypilot.Incarnation, records: list[Record], events: list[dict[str, Any]], *, last: bool
) -> tuple[str, bool]:
    """Why a machine ended, and whether it was taken away."""
    assert paid.end is not None
    ended = [r for r in records if r.kind == "machine_ended" and paid.begin < journal.Journal.seconds(r.at)]
    if ended and not last:
        return ended[0].facts["reason"], ended[0].facts["preempted"]
    kinds = [event["event"] for event in events]
    if "finished" in kinds:
        return "finished", False
    if last:
        return "ended with the job", False
    return ("left with a checkpoint" if "stopped" in kinds else "taken away"), True


def _by_journal(records: list[Record]) -> str:
    last = next((r for r in reversed(records) if r.kind in ("ended", "machine_started", "launched", "decision")), None)
    if last is None:
        return "unknown"
    return str(last.facts["state"]) if last.kind == "ended" else "running, by its last sign"


def record(run_id: str, kind: Any, at: float, **facts: Any) -> Record:
    """One of the ledger's kind, of a moment in seconds since 1970."""
    return Record(kind=kind, at=_iso(at), run_id=run_id, facts=facts)


def _iso(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
