"""What the controller of a managed job has done, in the run's own store, so that another controller can go on and
anybody can read why. It knows how records are kept and what they add up to; it decides nothing.
"""

import datetime
from collections.abc import Callable
from typing import Any

import msgspec

from checkpoints import layout
from checkpoints.stores import Store, StoreError
from launcher.ledger import Kind, Record

Facts = dict[str, Any]


class Journal:
    """Records in order, each written once. A record is kept here even where the store cannot be reached."""

    def __init__(self, run_id: str, store: Store, now: Callable[[], float]) -> None:
        self.run_id = run_id
        self.store = store
        self.now = now
        self.records: list[Record] = []
        self._written = 0
        self._trainer = TrainerLog(store)

    def read(self) -> None:
        """What earlier controllers have written. Raises StoreError."""
        self.records = read(self.store)
        self._written = len(self.records)

    def append(self, kind: Kind, *, at: float | None = None, **facts: Any) -> None:
        """Raises StoreError where it, or one before it, could not be written; a later call writes them."""
        self._keep(kind, at, facts)
        self.write()

    def unreachable(self, why: str) -> None:
        """Keep that the store could not be reached, once a time, for when it can."""
        if all(record.kind != "store_unreachable" for record in self.records[self._written :]):
            self._keep("store_unreachable", None, {"why": why})

    def _keep(self, kind: Kind, at: float | None, facts: Facts) -> None:
        self.records.append(Record(kind=kind, at=self.time(at), run_id=self.run_id, facts=facts))

    def write(self) -> None:
        """Write what is not written yet. Raises StoreError."""
        for record in self.records[self._written :]:
            name = layout.journal_name(self._written + 1)
            if not self.store.create(name, msgspec.json.encode(record)) and self.store.read(name) != (
                msgspec.json.encode(record)
            ):
                raise StoreError(f"Another controller writes {self.store.uri}/{name}; this one stops deciding.")
            self._written += 1

    def last(self, kind: Kind) -> Record | None:
        return next((record for record in reversed(self.records) if record.kind == kind), None)

    def count(self, kind: Kind) -> int:
        return sum(record.kind == kind for record in self.records)

    def machine(self) -> Record | None:
        """The start of the machine that runs now."""
        started = self.last("machine_started")
        if started is None or self.count("machine_ended") == self.count("machine_started"):
            return None
        return started

    def place_of(self, ended: Record) -> str:
        """Where the machine was whose end this is."""
        return next(
            str(record.facts["place"])
            for record in self.records
            if record.kind == "machine_started" and record.facts["machine"] == ended.facts["machine"]
        )

    def began(self) -> float:
        """When the run was launched, or gone on with by a person, seconds since 1970."""
        launched = self.last("launched")
        return self.seconds(launched.at) if launched else self.now()

    def spent_usd(self) -> float:
        """Of all machines up to now, at their price at the launch."""
        ends = {
            record.facts["machine"]: self.seconds(record.at)
            for record in self.records
            if record.kind == "machine_ended"
        }
        hours_usd = (
            (ends.get(start.facts["machine"], self.now()) - self.seconds(start.at)) / 3600 * start.facts["usd_per_hour"]
            for start in self.records
            if start.kind == "machine_started"
        )
        return float(sum(hours_usd))

    def progress(self) -> tuple[list[Facts], list[Facts]]:
        """The trainer's events and metrics, in order. Raises StoreError."""
        return self._trainer.events(), self._trainer.metrics()

    def time(self, seconds: float | None = None) -> str:
        """Seconds since 1970, or now, as the records have it."""
        moment = datetime.datetime.fromtimestamp(self.now() if seconds is None else seconds, datetime.UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @staticmethod
    def seconds(at: str) -> float:
        return datetime.datetime.fromisoformat(at).timestamp()


def read(store: Store) -> list[Record]:
    """The records in a run's store, oldest first; none where no controller of ours has run. Raises StoreError, for one
    that is damaged too: what the strategy goes by must be whole."""
    found = []
    for name in _names(store, layout.JOURNAL):
        try:
            found.append(msgspec.json.decode(store.read(name), type=Record))
        except (msgspec.DecodeError, UnicodeDecodeError) as failure:
            raise StoreError(f"{store.uri}/{name} is damaged: {failure}.") from failure
    return found


def decisions(records: list[Record]) -> list[Record]:
    """Those that say what was decided and why, for people."""
    return [record for record in records if record.kind in ("decision", "deadline_lost", "store_unreachable")]


class TrainerLog:
    """What the trainer of a run has written so far. Its objects never change, so none is read twice: a run of a day has
    thousands, and its controller looks every minute. Methods raise StoreError."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._read: dict[str, list[Facts]] = {}

    def events(self) -> list[Facts]:
        return self._all("events/")

    def metrics(self) -> list[Facts]:
        return self._all("metrics/")

    def _all(self, prefix: str) -> list[Facts]:
        names = _names(self.store, prefix)
        for name in names:
            if name not in self._read:
                self._read[name] = list(layout.records(self.store.read(name)))
        return [facts for name in names for facts in self._read[name]]


def _names(store: Store, prefix: str) -> list[str]:
    """In the order they were written: attempt, then sequence."""
    return sorted(entry.name for entry in store.list(prefix))
