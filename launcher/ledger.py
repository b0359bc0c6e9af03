"""Append-only records of runs on this machine: what was launched, the price that held when it began, which
machines it had, how it ended. One JSON object a line; a line is written whole or, after a crash, passed over.
"""

import datetime
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import platformdirs

from launcher.errors import LedgerError

Kind = Literal[
    "run",
    "machine_started",
    "machine_ready",
    "machine_price",
    "machine_ended",
    "ended",
    "evaluation",
    "launched",
    "decision",
    "refused",
    "deadline_lost",
    "store_unreachable",
]


def home() -> Path:
    """Where vlaunch keeps what it knows: VLAUNCH_HOME, or the platform's place for a user's data."""
    return Path(os.environ.get("VLAUNCH_HOME") or platformdirs.user_data_dir("vlaunch"))


def utc_now() -> str:
    """The time, UTC, ISO 8601 with milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `facts` depends on the kind:

    run             recipe, owner, recipe_text, task_yaml, store, infra, spot, simulated, on_demand_usd_per_hour,
                    price_source
    machine_started machine (1, 2, ...), place, usd_per_hour, price_source; accelerator (`A100:8`) where it has one
    machine_ready   machine: of a service, from when on it answers. A service is a run whose facts have `service` true;
                    its machines run side by side, and their machine_started has model, and initial (it replaces none)
    machine_price   machine, usd_per_hour, price_source: what it costs from now on
    machine_ended   machine, reason, preempted; lost_at where it was gone before that was noticed
    ended           state (finished, stopped, failed), why
    evaluation      file, baseline, candidate, judge, reviews, usd, price_source: a file of reviews so far; the newest
                    record of a file counts. Read by `evaluations`, not a part of `runs`.

    Of a managed job the controller writes these too, into the run's store (launcher/journal.py):
    launched        rules
    decision        action, zone, reason, memory, work_left_hours, spent_usd
    refused         place, spot: no machine was to be had
    deadline_lost   why, ways: place, spot, hours_late, usd of each way left
    store_unreachable  why: SkyPilot's own strategy decided from then on; written once the store is back
    """

    kind: Kind
    at: str
    run_id: str
    facts: dict[str, Any]


class Ledger:
    """The file of records, and a copy of each run's beside the run, from which a lost file is made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "ledger.jsonl"
        self.damaged = 0
        """Lines of the last reading that were not records."""
        self.restored = 0
        """Records that the last reading put back because the file was gone."""

    def append(self, kind: Kind, run_id: str, **facts: Any) -> Record:
        """Write one record, durable when this returns. Raises LedgerError."""
        record = Record(kind=kind, at=utc_now(), run_id=run_id, facts=facts)
        line = msgspec.json.encode(record) + b"\n"
        for path in (self._copy(run_id), self.path):
            self._write(path, line)
        return record

    def records(self) -> Iterator[Record]:
        """Every record that can be read, oldest first. Raises LedgerError where the file cannot be opened."""
        for line in self._lines():
            if record := self._decoded(line):
                yield record

    def runs(self) -> "Runs":
        """Records by run, runs in the order they were launched; a run's are decoded when they are asked for."""
        found: dict[str, list[bytes]] = {}
        last: dict[str, str] = {}
        evaluations: list[bytes] = []
        for line in self._lines():
            try:
                header = _HEADER.decode(line)
            except msgspec.DecodeError:
                self.damaged += 1
                continue
            if header.kind == "evaluation":
                evaluations.append(line)  # it says nothing of how a run stands
                continue
            found.setdefault(header.run_id, []).append(line)
            last[header.run_id] = header.kind
        return Runs(self, found, [run for run, kind in last.items() if kind != "ended"], evaluations)

    def evaluations(self) -> list[Record]:
        """The newest record of each file of reviews."""
        return self.runs().evaluations()

    def _decoded(self, line: bytes) -> Record | None:
        try:
            return _RECORD.decode(line)
        except msgspec.DecodeError:
            self.damaged += 1
            return None

    def _lines(self) -> list[bytes]:
        self.damaged = self.restored = 0
        try:
            lines = self._read()
        except OSError as failure:
            raise LedgerError(f"The ledger {self.path} cannot be read: {failure.strerror}.") from failure
        return [line for line in lines if line]

    def _read(self) -> list[bytes]:
        try:
            return self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return self._restore()

    def _restore(self) -> list[bytes]:
        """The records of every run's copy, written as the ledger again."""
        copies = [path.read_bytes().splitlines() for path in self.folder.glob("runs/*/records.jsonl")]
        # Runs by their first record; a run's own records stay in the order they were written.
        begun = [(first.at, number) for number, copy in enumerate(copies) if copy and (first := self._decoded(copy[0]))]
        lines = [line for _, number in sorted(begun) for line in copies[number] if line]
        self.restored = len(lines)
        if lines:
            self._write(self.path, b"\n".join(lines) + b"\n")
        return lines

    def _copy(self, run_id: str) -> Path:
        return self.folder / "runs" / run_id / "records.jsonl"

    @staticmethod
    def _write(path: Path, line: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # two launchers may write at once
                if file.tell() and not _ends_a_line(file.fileno(), file.tell()):
                    line = b"\n" + line  # a crash left half a line; keep ours whole
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as failure:
            raise LedgerError(
                f"The ledger {path} cannot be written: {failure.strerror}. Free space or set VLAUNCH_HOME "
                "to a folder that can be."
            ) from failure


class Runs(Mapping[str, list[Record]]):
    """Records by run id."""

    def __init__(
        self, ledger: Ledger, lines: dict[str, list[bytes]], unended: list[str], evaluations: list[bytes]
    ) -> None:
        self._ledger = ledger
        self._lines = lines
        self._evaluations = evaluations
        self.unended = unended
        """Runs whose last record is not their end: going on, or their launcher died."""

    def evaluations(self) -> list[Record]:
        """The newest record of each file of reviews."""
        read = [record for line in self._evaluations if (record := self._ledger._decoded(line))]
        return list({record.facts["file"]: record for record in read}.values())

    def __getitem__(self, run_id: str) -> list[Record]:
        return [record for line in self._lines[run_id] if (record := self._ledger._decoded(line))]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


class _Header(msgspec.Struct):
    kind: str
    run_id: str


_RECORD = msgspec.json.Decoder(Record)
_HEADER = msgspec.json.Decoder(_Header)


def _ends_a_line(handle: int, size: int) -> bool:
    return os.pread(handle, 1, size - 1) == b"\n"
