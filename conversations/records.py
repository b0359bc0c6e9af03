"""A source cut into records: JSON lists, JSON lines, single objects and tables, streamed. What is broken is passed on
as a record of its own with what is wrong, and reading goes on after it.
"""

import json
import re
from collections.abc import Iterator
from io import BufferedReader
from typing import BinaryIO

import msgspec

from conversations import sources
from conversations.errors import Unreadable
from conversations.schema import TURNS
from conversations.sources import Hashing, Source

BATCH_RECORDS = 64
BATCH_BYTES = 1_000_000
_SPACE = re.compile(r"[\s,]*")
_ID = re.compile(rb'\s*\{\s*"(?:id|conversation_id|conv_id)"\s*:\s*"([^"\\]{1,200})"')
_NEXT = re.compile(r"[,\n\[]\s*(?=\{)")


class Raw(msgspec.Struct, frozen=True):
    """A record as it stands in its source."""

    number: int
    """Of its source, from 1."""
    where: str
    """Source and place, for a person."""
    name: str
    """Its id as far as it can be told without reading the record; made of source and number where it has none."""
    data: bytes
    problem: tuple[str, str] | None = None
    """Reason and detail, where it is known already that it cannot be used."""


class Input(msgspec.Struct, frozen=True):
    """A source that has been read whole, for the manifest."""

    name: str
    sha256: str
    bytes: int
    records: int


class Reading:
    """The records of sources, one source after another."""

    def __init__(self, given: list[Source], largest: int) -> None:
        self._given = given
        self._largest = largest
        self.inputs: list[Input] = []
        """Grows as sources are read to their end."""
        self.bytes = 0
        """Read so far, as stored."""

    def __iter__(self) -> Iterator[Raw]:
        for source in self._given:
            with source.open() as stream:
                yield from self._of(source.name, stream)

    def _of(self, name: str, stream: BinaryIO) -> Iterator[Raw]:
        before = self.bytes
        hashing = Hashing(stream)
        number = 0
        stem = re.sub(r"(\.(jsonl?|ndjson|gz|zst|bz2|xz|parquet|arrow))+$", "", name.rsplit("/", 1)[-1])
        for place, data, problem in self._places(stream, hashing):
            number += 1
            self.bytes = before + hashing.size
            if problem is None and len(data) > self._largest:
                problem = _oversize(len(data))
            found = _ID.match(data[:512])
            own = found[1].decode(errors="replace") if found else f"{stem}-{number}"
            yield Raw(number, f"{name}, {place or 'record ' + str(number)}", own, b"" if problem else data, problem)
        digest = hashing.finish()
        self.bytes = before + hashing.size
        self.inputs.append(Input(name, digest, hashing.size, number))

    def _places(self, stream: BinaryIO, hashing: Hashing) -> "Iterator[_Place]":
        head = stream.read(4)
        stream.seek(0)
        try:
            if sources.is_table(head):
                try:
                    for row in sources.rows(stream):
                        yield "", row, None
                finally:
                    stream.seek(0)  # for the hash
                return
            yield from _json(_Text(sources.unpacked(hashing), 2 * self._largest))  # type: ignore[arg-type]
        except Unreadable as broken:
            yield "", b"", (broken.reason, broken.detail)


def batches(records: Iterator[Raw], asked: list[list[Raw]]) -> Iterator[list[Raw]]:
    """Records together that are worth a message to a worker; `asked` gets their names, without their text."""
    batch: list[Raw] = []
    size = 0
    for raw in records:
        batch.append(raw)
        size += len(raw.data)
        if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
            asked.append([msgspec.structs.replace(each, data=b"") for each in batch])
            yield batch
            batch, size = [], 0
    if batch:
        asked.append([msgspec.structs.replace(each, data=b"") for each in batch])
        yield batch


_Place = tuple[str, bytes, tuple[str, str] | None]


class _Text:
    """A window on a stream of text that grows at its end and is dropped at its beginning. Bytes that are not UTF-8
    survive as lone surrogates, so that a record's own bytes come back from `bytes_of`.
    """

    def __init__(self, stream: BufferedReader, largest: int) -> None:
        self._stream = stream
        self.largest = largest
        self.text = ""
        self.at_end = False
        self._left = b""

    def grow(self) -> bool:
        """Read on; False where the stream has ended."""
        if self.at_end:
            return False
        data = self._read(max(sources.CHUNK, len(self.text)))
        self.at_end = not data
        data = self._left + data
        whole = len(data)
        if not self.at_end:  # keep a character that is cut in half for the next time
            for back in range(1, min(4, whole) + 1):
                if data[-back] >= 0xC0:
                    whole -= back
                    break
                if data[-back] < 0x80:
                    break
        self._left = data[whole:]
        self.text += data[:whole].decode("utf-8", "surrogateescape")
        return not self.at_end

    def _read(self, size: int) -> bytes:
        """About `size` bytes; where the stream breaks, first what comes before that, then Unreadable."""
        parts: list[bytes] = []
        have = 0
        while have < size:
            try:
                part = self._stream.read1(size - have)
            except Unreadable:
                if not parts:
                    raise
                break
            if not part:
                break
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def drop(self, until: int) -> None:
        self.text = self.text[until:]


def bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _json(window: _Text) -> Iterator[_Place]:
    while not window.text.strip():
        if not window.grow():
            return
    while "\n" not in window.text and window.grow() and len(window.text) < window.largest:
        pass
    text = window.text.lstrip()
    first = text.split("\n", 1)[0].rstrip()
    if first.startswith("{") and len(first) > 1 and not first.endswith((",", "[", "{", ":")):
        yield from _lines(window)
    elif first.startswith("{") or first.startswith("["):
        in_list = first.startswith("[")
        window.drop(len(window.text) - len(text) + in_list)
        yield from _values(window, in_list)
    else:
        yield from _lines(window)


def _lines(window: _Text) -> Iterator[_Place]:
    """One record a line."""
    number = 0
    skipped = 0
    while True:
        at = 0
        while (end := window.text.find("\n", at)) >= 0:
            number += 1
            line = window.text[at:end]
            at = end + 1
            if skipped:
                yield f"line {number}", bytes_of(line[:4096]), _oversize(skipped + len(line))
                skipped = 0
            elif line.strip():
                yield f"line {number}", bytes_of(line), None
        window.drop(at)
        if skipped or len(window.text) > window.largest:
            skipped += len(window.text)
            window.drop(len(window.text))
        if not window.grow():
            break
    if skipped:
        yield f"line {number + 1}", b"", _oversize(skipped + len(window.text))
    elif window.text.strip():
        yield f"line {number + 1}", bytes_of(window.text), None


def _values(window: _Text, in_list: bool) -> Iterator[_Place]:
    """Records of a JSON list, or objects one after another over several lines."""
    decoder = json.JSONDecoder()
    at = 0
    while True:
        found = _SPACE.match(window.text, at)
        at = found.end() if found else at
        if at >= len(window.text):
            window.drop(at)
            at = 0
            if window.grow():
                continue
            if in_list:
                yield "the end of the list", b"", ("truncated", "the list has no closing bracket")
            return
        if window.text[at] == ("]" if in_list else "["):
            in_list = not in_list
            at += 1
            continue
        try:
            _, end = decoder.raw_decode(window.text, at)
        except (json.JSONDecodeError, RecursionError) as failure:
            window.drop(at)
            if _wants_more(failure, window, at) and window.grow():
                at = 0
                continue
            head = bytes_of(window.text[:4096])
            problem, at_end = _skip_broken(window, failure, at)
            yield "", head, problem
            if at_end:
                return
            at = 0
            continue
        if end >= len(window.text) and window.text[at] not in '{["' and window.grow():
            continue  # a number that may go on
        yield "", bytes_of(window.text[at:end]), None
        at = end
        if at > sources.CHUNK:
            window.drop(at)
            at = 0


def _wants_more(failure: Exception, window: _Text, at: int = 0) -> bool:
    """Whether text that does not decode may only be cut off where the window ends; `at` is what was dropped of the
    window since.
    """
    if window.at_end or not isinstance(failure, json.JSONDecodeError) or len(window.text) > window.largest:
        return False
    # Escapes and literals are a few characters long; a string that is not closed is told by where it begins.
    return failure.msg.startswith("Unterminated string") or failure.pos - at >= len(window.text) - 16


def _skip_broken(window: _Text, failure: Exception, at: int) -> tuple[tuple[str, str], bool]:
    """Move the window from a broken record to the next whole one; what is wrong, and whether there is no next."""
    decoder = json.JSONDecoder()
    size = 0
    searched = 1
    while True:
        for candidate in _NEXT.finditer(window.text, searched):
            try:
                value, _ = decoder.raw_decode(window.text, candidate.end())
            except json.JSONDecodeError as broken:
                if _wants_more(broken, window):
                    searched = candidate.start()
                    break
                continue
            except RecursionError:
                continue
            if isinstance(value, dict) and any(key in value for key in TURNS):
                window.drop(candidate.end())
                return _complaint(failure, at, size + candidate.start(), window, cut=False), False
        else:
            searched = max(1, len(window.text) - 16)
        size += searched - 1
        window.drop(searched - 1)
        searched = 1
        if not window.grow():
            closed = window.text.rstrip().endswith("]")
            size += len(window.text)
            window.drop(len(window.text))
            return _complaint(failure, at, size, window, cut=not closed), True


def _complaint(failure: Exception, at: int, size: int, window: _Text, *, cut: bool) -> tuple[str, str]:
    if size > window.largest // 2:
        return _oversize(size)
    if isinstance(failure, RecursionError):
        return "not_json", "its brackets are nested too deep"
    assert isinstance(failure, json.JSONDecodeError)
    if cut:
        return "truncated", "it is cut off where the file ends"
    return "not_json", f"{failure.msg[:1].lower()}{failure.msg[1:]}, {failure.pos - at} characters into it"


def _oversize(characters: int) -> tuple[str, str]:
    return "too_large", f"{characters / 1e6:.1f} MB, more than [size] allows"
