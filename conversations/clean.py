"""Raw chats to clean conversations, in two passes. The first converts and filters on all cores and is resumable: a
journal says how far it came. The second merges duplicates and writes the result, the report and the manifest.
"""

import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from conversations import duplicates, filters, schema
from conversations.errors import ConversationsError, Unreadable
from conversations.output import Writer, describe, writing
from conversations.pool import Lost, Pool, workers_for
from conversations.records import Raw, Reading, batches
from conversations.rules import Rules
from conversations.sources import Source, missing

LIBRARIES = ("html-to-markdown", "rensa", "py3langid")
COLUMNS = ("kept", "report", "marks", "beginnings", "near")
"""The files that the first pass appends to."""


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened to one record: a line of the report."""

    record: str
    id: str
    outcome: str
    """kept, merged, dropped or unreadable."""
    reason: str = ""
    """The rule that dropped or merged it, or why it is unreadable."""
    detail: str = ""
    into: str = ""
    """The id of the conversation it was merged into."""
    changes: dict[str, Any] = {}
    """How many turns each rule changed or took off; of personal data how many finds of each kind."""


class Counts(msgspec.Struct, kw_only=True):
    """in = kept + merged + dropped + unreadable, whatever the records are."""

    records_in: int = 0
    kept: int = 0
    merged: dict[str, int] = msgspec.field(default_factory=dict)
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    unreadable: dict[str, int] = msgspec.field(default_factory=dict)
    changed: dict[str, int] = msgspec.field(default_factory=dict)
    """Records of those kept that a rule changed."""

    def add(self, row: Row) -> None:
        self.records_in += 1
        if row.outcome == "kept":
            self.kept += 1
            for rule in row.changes:
                self.changed[rule] = self.changed.get(rule, 0) + 1
        else:
            reasons: dict[str, int] = getattr(self, row.outcome)
            reasons[row.reason] = reasons.get(row.reason, 0) + 1


class Cleaned(msgspec.Struct, frozen=True, kw_only=True):
    """What `clean` did."""

    out: Path
    report: Path
    counts: Counts
    resumed_records: int
    """How many records of an earlier, interrupted run were not done again."""
    named: list[Row]
    """The first of the unreadable records."""


class _Outcome(msgspec.Struct, frozen=True):
    row: Row
    kept: bytes = b""
    marks: duplicates.Marks | None = None


def clean(
    given: list[Source],
    out: Path,
    report: Path,
    rules: Rules,
    *,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda bytes_read, records: None,
) -> Cleaned:
    """Clean the sources into `out`. `progress` is told bytes read and records done.

    An interrupted run is gone on with where sources, rules and versions are the same, and gives the same bytes.
    Raises ConversationsError.
    """
    _check_installed(rules)
    work = out.with_name(out.name + ".work")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        Writer(out), Writer(report)  # their names are right, before any work
        work.mkdir(exist_ok=True)
        with (work / "lock").open("wb") as lock:
            try:
                # not flock, which a worker that outlives a killed parent by a moment would hold on to
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConversationsError(
                    f"Another process is writing {out}; wait for it or name another --out."
                ) from None
            reading = Reading(given, int(rules.size.megabytes * 1e6))
            workers = processes or workers_for(sum(source.size for source in given))
            resumed = _convert(reading, work, _key(given, rules), rules, workers, progress)
            cleaned = _finish(work, out, report, rules, resumed)
            describe(
                out,
                made_by="vlaunch data clean",
                inputs=reading.inputs,
                settings={"rules": msgspec.to_builtins(rules)},
                counts=msgspec.to_builtins(cleaned.counts),
                records=cleaned.counts.kept,
                libraries=LIBRARIES,
            )
            shutil.rmtree(work)
    return cleaned


def _check_installed(rules: Rules) -> None:
    needed = {"html_to_markdown": rules.html.on, "rensa": rules.duplicates.on, "numpy": rules.duplicates.on,
              "py3langid": bool(rules.language.keep)}  # fmt: skip
    for name, is_needed in needed.items():
        if is_needed and importlib.util.find_spec(name) is None:
            raise missing(name.replace("_", "-"), "cleaning")


def _key(given: list[Source], rules: Rules) -> str:
    """What must be the same for an interrupted run to be gone on with."""
    versions = [importlib.metadata.version(name) for name in ("vlaunch", *LIBRARIES)]
    settings = msgspec.json.encode(rules).decode()
    return hashlib.sha256("\n".join([settings, *versions, *(each.stamp() for each in given)]).encode()).hexdigest()


def _convert(
    reading: Reading, work: Path, key: str, rules: Rules, workers: int, progress: Callable[[int, int], None]
) -> int:
    """The first pass; how many records were there already."""
    with _Journal(work, key) as journal:
        resumed = journal.records
        records = iter(reading)
        for _ in range(resumed):
            next(records)
        asked: list[list[Raw]] = []
        pool: Pool[Raw, _Outcome] = Pool(functools.partial(_worker, rules), workers)
        for results in pool.map(batches(records, asked)):
            raws = asked.pop(0)
            journal.append([_lost(raw, each) if isinstance(each, Lost) else each
                            for raw, each in zip(raws, results, strict=True)])  # fmt: skip
            progress(reading.bytes, journal.records)
    return resumed


def _worker(rules: Rules) -> Callable[[Raw], _Outcome]:
    """What a worker process applies to each record."""
    return functools.partial(_outcome, rules=rules)


def _outcome(raw: Raw, rules: Rules) -> _Outcome:
    name = raw.name
    try:
        if raw.problem:
            raise Unreadable(*raw.problem)
        conversation = schema.parse(raw.data, raw.name)
        name = conversation.id
        conversation, changes = filters.clean(conversation, rules)
    except Unreadable as fault:
        row = Row(record=raw.where, id=name, outcome="unreadable", reason=fault.reason, detail=fault.detail)
        return _Outcome(row)
    except filters.Dropped as fault:
        return _Outcome(Row(record=raw.where, id=name, outcome="dropped", reason=fault.rule, detail=fault.detail))
    return _Outcome(
        Row(record=raw.where, id=name, outcome="kept", changes=changes),
        msgspec.json.encode(conversation),
        duplicates.marks(conversation, rules.duplicates) if rules.duplicates.on else None,
    )


def _lost(raw: Raw, lost: Lost) -> _Outcome:
    return _Outcome(Row(record=raw.where, id=raw.name, outcome="unreadable", reason="crash", detail=lost.why))


class _Journal:
    """The files of the first pass, and how far each is whole."""

    def __init__(self, work: Path, key: str) -> None:
        self._path = work / "journal.jsonl"
        self._paths = [work / name for name in COLUMNS]
        self.records, sizes = self._state(key)
        if not self.records:
            self._path.write_text(f"{key}\n")
        self._files: list[BinaryIO] = []
        for path, size in zip(self._paths, sizes, strict=True):
            file = path.open("ab")
            file.truncate(size)
            self._files.append(file)
        self._log = self._path.open("ab")

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(self, *failure: object) -> None:
        for file in [*self._files, self._log]:
            file.close()

    def append(self, outcomes: list[_Outcome]) -> None:
        kept = [each for each in outcomes if each.kept]
        columns = (
            b"".join(each.kept + b"\n" for each in kept),
            b"".join(msgspec.json.encode(each.row) + b"\n" for each in outcomes),
            b"".join(each.marks.mark for each in kept if each.marks),
            b"".join(each.marks.beginnings for each in kept if each.marks),
            b"".join(each.marks.near for each in kept if each.marks),
        )
        for file, data in zip(self._files, columns, strict=True):
            file.write(data)
            file.flush()
        self.records += len(outcomes)
        self._log.write(msgspec.json.encode([self.records, [file.tell() for file in self._files]]) + b"\n")
        self._log.flush()

    def _state(self, key: str) -> tuple[int, list[int]]:
        """Records done and the size of each file then, by the newest line that the files bear out."""
        nothing = (0, [0] * len(COLUMNS))
        if not self._path.exists():
            return nothing
        first, *lines = self._path.read_bytes().split(b"\n")
        if first.decode(errors="replace") != key:
            return nothing
        have = [path.stat().st_size if path.exists() else 0 for path in self._paths]
        for line in reversed(lines):
            try:
                records, sizes = msgspec.json.decode(line, type=tuple[int, list[int]])
            except msgspec.DecodeError:
                continue  # cut off by the kill
            if all(size <= there for size, there in zip(sizes, have, strict=True)):
                return records, sizes
        return nothing


def _finish(work: Path, out: Path, report: Path, rules: Rules, resumed: int) -> Cleaned:
    """The second pass."""
    into, why = duplicates.merged(work, rules.duplicates)
    names = _names(work / "kept", set(into[into >= 0].tolist()))
    counts = Counts()
    named: list[Row] = []
    place = 0
    with (
        (work / "report").open("rb") as rows,
        (work / "kept").open("rb") as kept,
        Writer(out) as records,
        Writer(report) as told,
    ):
        for line in rows:
            row = msgspec.json.decode(line, type=Row)
            if row.outcome == "kept":
                record = kept.readline().rstrip(b"\n")
                if len(into) and into[place] >= 0:
                    reason = duplicates.REASONS[why[place]]
                    row = Row(record=row.record, id=row.id, outcome="merged", reason=reason, into=names[into[place]])
                else:
                    records.write(record)
                place += 1
            elif row.outcome == "unreadable" and len(named) < 20:
                named.append(row)
            counts.add(row)
            told.write(msgspec.json.encode(row))
    return Cleaned(out=out, report=report, counts=counts, resumed_records=resumed, named=named)


def _names(kept: Path, wanted: set[int]) -> dict[int, str]:
    """The ids of the conversations at those places."""
    found = {}
    with kept.open("rb") as file:
        for place, line in enumerate(file):
            if place in wanted:
                found[place] = msgspec.json.decode(line, type=schema.Conversation).id
    return found
