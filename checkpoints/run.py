"""A run's folder in its store as the machine that works on it sees it: numbered attempts, events, metrics.

Attempts are numbered by exclusive creation, so of two machines that start at once each gets a number of its
own, and the one with the lower number finds out that it is no longer wanted.
"""

import datetime
import threading
from typing import Any

import msgspec

from checkpoints import layout
from checkpoints.stores import Store, StoreError


def utc_now() -> str:
    """The time, UTC, ISO 8601 with milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Attempt:
    """One start of the job. Written by rank 0 alone; safe to call from the thread that saves."""

    def __init__(self, store: Store, number: int) -> None:
        self.store = store
        self.number = number
        self._events = 0
        self._parts = 0
        self._lines: list[bytes] = []
        self._lock = threading.Lock()

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
        newest = layout.newest_attempt(entry.name for entry in self.store.list("attempts/"))
        return newest if newest > self.number else None

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
        """Write the noted lines as one object. Called now and then, so that a bucket sees few small objects."""
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
