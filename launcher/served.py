"""What is known of a service in a cloud: its replicas by SkyServe, and what was paid for them by SkyPilot.

SkyPilot's server has the replicas' machines in its records where it runs SkyServe's controller itself. Where that has a
machine of its own, each replica counts from its launch until it is first missed, by SkyServe's status; of one that came
and went between two looks nobody here knows.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from launcher import managed, skypilot, skyserve
from launcher.errors import VlaunchError
from launcher.ledger import Record
from launcher.managed import Managed
from launcher.skypilot import Incarnation
from launcher.skyserve import ServedReplica

STATUS_SOURCE = "SkyServe's status"


class Paid(msgspec.Struct, frozen=True):
    """A stretch of a replica's life, and who says so."""

    machine: Incarnation
    source: str


_KEPT = msgspec.json.Decoder(list[Paid])


def look(
    service: str,
    parts: Sequence[str],
    folder: Path,
    *,
    over: bool,
    replicas: Callable[[str], list[ServedReplica] | None] = skyserve.replicas,
    paid: Callable[[Sequence[str]], list[Incarnation]] = skypilot.replicas_paid,
    clock: Callable[[], float] = time.time,
) -> Managed:
    """A service of these SkyServe services now. What is known is kept in `folder`; once it is `over` and all that was
    known has ended, nobody is asked again."""
    path, known = folder / "served.json", list[Paid]()
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        known = _KEPT.decode(path.read_bytes())
    if over and known and all(each.machine.end is not None for each in known):
        return Managed(state="", machines=_records(service, known))
    try:
        recorded = paid(parts)
        there = [replica for part in parts for replica in replicas(part) or []]
    except VlaunchError as failure:
        state = "" if over else "running, by its last sign"
        return Managed(state=state, machines=_records(service, known), unread=str(failure))
    known = _joined(known, there, recorded, clock())
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(known))
    ready = any(replica.state == "ready" for replica in there)
    return Managed(
        state="" if over else "running" if ready else "starting",
        place=", ".join(sorted({replica.place for replica in there if replica.place})),
        machines=_records(service, known),
    )


def _joined(
    known: Sequence[Paid], there: Sequence[ServedReplica], recorded: Sequence[Incarnation], now: float
) -> list[Paid]:
    """Every stretch once: as SkyPilot's records have it, else as SkyServe's status showed it, oldest first."""
    found = [Paid(each, managed.PRICE_SOURCE) for each in recorded]
    clusters = {each.cluster for each in recorded}
    here = {(replica.cluster, replica.launched_at): replica for replica in there if replica.cluster not in clusters}
    for each in known:
        machine = each.machine
        if machine.cluster in clusters:
            continue
        if here.pop((machine.cluster, machine.begin), None) is None and machine.end is None:
            machine = msgspec.structs.replace(machine, end=now)
        found.append(Paid(machine, each.source))
    for replica in here.values():
        if replica.launched_at is not None and replica.usd_per_hour is not None:
            machine = Incarnation(
                cluster=replica.cluster, place=replica.place, spot=bool(replica.spot), accelerator=replica.accelerator,
                begin=replica.launched_at, end=None, usd_per_hour=replica.usd_per_hour,
            )  # fmt: skip
            found.append(Paid(machine, STATUS_SOURCE))
    return sorted(found, key=lambda each: (each.machine.begin, each.machine.cluster))


def _records(service: str, known: Sequence[Paid]) -> list[Record]:
    """As the ledger has them of services on this machine."""
    found = []
    for number, each in enumerate(known, start=1):
        found.append(managed.started(service, number, each.machine, each.source))
        if each.machine.end is not None:
            # SkyServe does not say whether it was taken away.
            facts = {"machine": number, "reason": "gone", "preempted": False}
            found.append(managed.record(service, "machine_ended", each.machine.end, **facts))
    return found
