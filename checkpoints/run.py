"""A run's folder in its store as the machine that works on it sees it: numbered attempts, events, metrics.

Attempts are numbered by exclusive creation, so of two machines that start at once each gets a number of its
own, and the one with the lower number finds out that it is no longer wanted.
"""

import contextlib
import datetime
import threading
import uuid
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from checkpoints import layout
from checkpoints.layout import Checkpoint
from checkpoints.stores import Store, StoreError

_READERS_KEEP = datetime.timedelta(hours=2)
"""For so long the mark of a reader that never took it away is respected."""


def utc_now() -> str:
    """The time, UTC, ISO 8601 with milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def newer(store: Store, number: int) -> int | None:
    """The number of an attempt that has taken over the run in `store`, None while attempt `number` owns it."""
    newest = layout.newest_attempt(entry.name for entry in store.list("attempts/"))
    return newest if newest > number else None


def asked_to_leave(store: Store, number: int) -> bool:
    """Whether whoever pays has asked attempt `number` to save and leave."""
    return any(entry.name == layout.leave_name(number) for entry in store.list("attempts/"))


def lives(store: Store, before: int) -> list[float]:
    """How long each attempt before `before` was at work, in seconds: from its beginning to its last event."""
    last = {layout.attempt_of_event(name): name for name in sorted(entry.name for entry in store.list("events/"))}
    found = []
    parse = datetime.datetime.fromisoformat
    for number in sorted(set(last) & set(range(1, before))):
        begun, event = (
            next(layout.records(store.read(name)), None) for name in (layout.attempt_name(number), last[number])
        )
        if begun and event:
            found.append((parse(event["at"]) - parse(begun["started_at"])).total_seconds())
    return found


@contextlib.contextmanager
def reading(store: Store, checkpoint: Checkpoint, keeps: datetime.timedelta = _READERS_KEEP) -> Iterator[None]:
    """Whoever owns the run does not delete `checkpoint` meanwhile, however long it takes, nor for `keeps` after the
    reader died."""
    mark, done = layout.reader_name(checkpoint, uuid.uuid4().hex), threading.Event()

    def until() -> bytes:
        return (datetime.datetime.now(datetime.UTC) + keeps).isoformat().encode()

    def renew() -> None:
        while not done.wait(keeps.total_seconds() / 4):
            with contextlib.suppress(StoreError):  # there are three more tries
                store.write(mark, [until()])

    store.create(mark, until())
    renewing = threading.Thread(target=renew, name="reader", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()  # else it could write the mark again after it was deleted
        store.delete([mark])


def forget(store: Store, attempt: int, *, keep: int, damaged: Collection[Checkpoint] = ()) -> None:
    """Delete what no longer serves, after a commit of attempt `attempt`; nothing where a newer one owns the run."""
    if newer(store, attempt) is not None:
        return
    now = datetime.datetime.now(datetime.UTC)
    loading: set[Checkpoint] = set()
    for mark, checkpoint in layout.being_read(entry.name for entry in store.list("readers/")).items():
        with contextlib.suppress(FileNotFoundError):  # the reader has just finished
            if datetime.datetime.fromisoformat(store.read(mark).decode()) > now:
                loading.add(checkpoint)
            else:
                store.delete([mark])
    names = [entry.name for entry in store.list("checkpoints/")]
    store.delete(layout.deletable(names, keep=keep, attempt=attempt, damaged=damaged, loading=loading))


class Attempt:
    """One start of the job. Written by rank 0 alone; safe to call from the thread that saves."""

    def __init__(self, store: Store, number: int) -> None:
        self.store = store
        self.number = number
        self._events = 0
        self._parts = 0
        self._lines: list[bytes] = []
        self._lock = threading.Lock()
        self._flushing = threading.Lock()

    @classmethod
    def begin(cls, store: Store, about: dict[str, Any]) -> "Attempt":
        """Take the next number in `store` (a run's) and record `about`: zone, machine, price."""
        number = layout.newest_attempt(entry.name for entry in store.list("attempts/")) + 1
        record = msgspec.json.encode({"started_at": utc_now(), **about})
        while not store.create(layout.attempt_name(number), record):
            number += 1
        store.tidy()
        attempt = cls(store, number)
        attempt.event("attempt_started", **about)
        return attempt

    def newer(self) -> int | None:
        """The number of an attempt that has taken over the run, None while this one owns it."""
        return newer(self.store, self.number)

    def event(self, kind: str, **facts: Any) -> None:
        """Record what happened; durable when this returns."""
        with self._lock:
            self._events += 1
            name = layout.event_name(self.number, self._events)
        fields = {"event": kind, "at": utc_now(), "attempt": self.number, **facts}
        self.store.create(name, msgspec.json.encode(fields))

    def metrics(self, line: dict[str, Any]) -> None:
        """Note a line; `flush` writes what was noted."""
        with self._lock:
            self._lines.append(msgspec.json.encode(line))

    def flush(self) -> None:
        """Write the noted lines as one object; when this returns, all that were noted before are durable."""
        with self._flushing:
            with self._lock:
                lines, self._lines = self._lines, []
                if not lines:
                    return
                self._parts += 1
                name = layout.metrics_name(self.number, self._parts)
            try:
                self.store.write(name, [b"\n".join(lines) + b"\n"])
            except StoreError:
                with self._lock:  # a later flush takes them along
                    self._lines = lines + self._lines
                raise
