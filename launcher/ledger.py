"""Append-only records of runs on this machine: what was launched, the price that held when it began, which
machines it had, how it ended. One JSON object a line; a line is written whole or, after a crash, passed over.
"""

import datetime
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import platformdirs

from launcher.errors import LedgerError

Kind = Literal["run", "machine_started", "machine_ended", "ended"]


def home() -> Path:
    """Where vlaunch keeps what it knows: VLAUNCH_HOME, or the platform's place for a user's data."""
    return Path(os.environ.get("VLAUNCH_HOME") or platformdirs.user_data_dir("vlaunch"))


def utc_now() -> str:
    """The time, UTC, ISO 8601 with milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `facts` depends on the kind:

    run             recipe, recipe_text, task_yaml, store, infra, spot, simulated, on_demand_usd_per_hour, price_source
    machine_started machine (1, 2, ...), place, usd_per_hour, price_source
    machine_ended   machine, reason, preempted
    ended           state (finished, stopped, failed), why
    """

    kind: Kind
    at: str
    run_id: str
    facts: dict[str, Any]


class Ledger:
    """The file of records."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.jsonl"

    def append(self, kind: Kind, run_id: str, **facts: Any) -> Record:
        """Write one record, durable when this returns. Raises LedgerError."""
        record = Record(kind=kind, at=utc_now(), run_id=run_id, facts=facts)
        line = msgspec.json.encode(record) + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # two launchers may write at once
                if file.tell() and not _ends_a_line(file.fileno(), file.tell()):
                    line = b"\n" + line  # a crash left half a line; keep ours whole
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as failure:
            raise LedgerError(
                f"The ledger {self.path} cannot be written: {failure.strerror}. Free space or set VLAUNCH_HOME "
                "to a folder that can be."
            ) from failure
        return record

    def records(self) -> Iterator[Record]:
        """Every record that can be read, oldest first. Raises LedgerError where the file cannot be opened."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as failure:
            raise LedgerError(f"The ledger {self.path} cannot be read: {failure.strerror}.") from failure
        self.damaged = 0
        for line in lines:
            if not line:
                continue
            try:
                yield msgspec.json.decode(line, type=Record)
            except msgspec.DecodeError:
                self.damaged += 1

    damaged = 0
    """Lines of the last reading that were not records."""

    def runs(self) -> dict[str, list[Record]]:
        """Records by run, runs in the order they were launched."""
        found: dict[str, list[Record]] = {}
        for record in self.records():
            found.setdefault(record.run_id, []).append(record)
        return found


def _ends_a_line(handle: int, size: int) -> bool:
    return os.pread(handle, 1, size - 1) == b"\n"
