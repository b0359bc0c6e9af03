"""Which conversations are the same, exactly or nearly, and which of them is kept. What is compared is small and of one
size for every conversation, so it lies in two files, and memory stays flat however many there are.
"""

import array
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from conversations.rules import Duplicates
from conversations.schema import Conversation, Turn

PERMUTATIONS = 128
SEED = 20230330
RUN = 3
"""Words that are compared together."""
ENOUGH = 30
"""Runs of words that a text must have to be compared by similarity; one changed word of a shorter text may change
what it says, and is not counted as near.
"""
DIGEST_BYTES = 4 * PERMUTATIONS
NEAR_BYTES = 2 * DIGEST_BYTES
_BLOCK = 2048

_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W぀-ヿ㐀-鿿가-힯]+")
"""A word, or a character of a script that puts no spaces between words."""
_ASCII = "".join(chr(code) if chr(code).isalnum() or chr(code) == "_" else " " for code in range(128))
"""Blanks for what is in no word, as a table to translate by."""


class Marks(msgspec.Struct, frozen=True):
    """What is compared of one conversation."""

    mark: bytes
    """Hashes of the whole and of the opening, characters, whether each can be compared by similarity, and how many
    beginnings it has."""
    beginnings: bytes
    """Hash of what was said up to each round but the last."""
    near: bytes
    """MinHash of the whole and of the opening."""


def marks(conversation: Conversation, rule: Duplicates) -> Marks:
    """What `merged` compares by. White space and upper case make no difference."""
    from rensa import RMinHash

    turns = [turn for turn in conversation.conversations if turn.speaker != "system"]
    opening, rest = _words(turns[:2]), _words(turns[2:])
    first, more = _runs(opening), _runs(opening[-RUN + 1 :] + rest)
    sketch = RMinHash(num_perm=PERMUTATIONS, seed=SEED)
    sketch.update(first)
    opening_digest = _packed(sketch)
    if more:
        sketch.update(more)
    hashes = _hashes(turns)
    characters = sum(len(turn.value) for turn in conversation.conversations)
    enough = bytes([len(first) + len(more) >= ENOUGH, len(first) >= ENOUGH])
    return Marks(
        hashes[-1] + hashes[0] + characters.to_bytes(8, "little") + enough + len(hashes[:-1]).to_bytes(6, "little"),
        b"".join(hashes[:-1]),
        _packed(sketch) + opening_digest,
    )


def _words(turns: list[Turn]) -> list[str]:
    words: list[str] = []
    for turn in turns:
        text = turn.value.lower()
        # the same words either way
        words += text.translate(_ASCII).split() if text.isascii() else _WORD.findall(text)
    return words


def _runs(words: list[str]) -> list[str]:
    return [f"{one} {two} {three}" for one, two, three in zip(words, words[1:], words[2:], strict=False)]


def _hashes(turns: list[Turn]) -> list[bytes]:
    """Of what was said up to each round, the first to the last."""
    digest = hashlib.blake2b(digest_size=16)
    found = []
    for number, turn in enumerate(turns):
        digest.update(f"{turn.speaker}\1{' '.join(turn.value.lower().split())}\0".encode())
        if number % 2 or number == len(turns) - 1:
            found.append(digest.digest())
    return found


def _packed(sketch: Any) -> bytes:
    return array.array("I", sketch.digest()).tobytes()


def merged(work: Path, rule: Duplicates) -> dict[int, tuple[int, str]]:
    """For each conversation that is merged, by its place in the files of `work`: the one it is merged into, and why.
    The kept one is the longest of those like it, and of equally long ones the first.
    """
    import numpy as np

    layout = [("hash", "S16", 2), ("characters", "<u8"), ("enough", "?", 2), ("beginnings", "<u2"), ("", "V4")]
    with (work / "marks").open("rb") as file:
        table = np.fromfile(file, np.dtype(layout))
    if not rule.on or not len(table):
        return {}
    places = np.arange(len(table))
    # rank 0 is the longest; every comparison is of a longer one with a shorter
    rank = np.empty(len(table), np.int64)
    rank[np.lexsort((places, -table["characters"].astype(np.int64)))] = places
    shorter: dict[int, dict[int, str]] = {}

    def add(longer: int, other: int, why: str) -> None:
        shorter.setdefault(longer, {}).setdefault(other, why)

    if rule.conversations:
        with (work / "beginnings").open("rb") as file:
            beginnings = np.fromfile(file, "S16")
        owners = np.concatenate([places, np.repeat(places, table["beginnings"])])
        for group in _equal(np.concatenate([table["hash"][:, 0], beginnings]), rank[owners]):
            longest = group[0]
            for each in group[1:]:
                if each < len(places):
                    add(int(owners[longest]), each, "same" if longest < len(places) else "beginning")
    if rule.openings:
        long_enough = np.flatnonzero(table["enough"][:, 1])
        for group in _equal(table["hash"][long_enough, 1], rank[long_enough]):
            for each in group[1:]:
                add(int(long_enough[group[0]]), int(long_enough[each]), "same_opening")
    if rule.similarity < 1:
        with (work / "near").open("rb") as near:
            for which, name in [(0, "near")] * rule.conversations + [(1, "near_opening")] * rule.openings:
                for pair in _near(near, which, table["enough"][:, which], rank, rule.similarity):
                    add(*pair, name)
    found: dict[int, tuple[int, str]] = {}
    for longer in sorted(shorter, key=lambda each: int(rank[each])):
        if longer not in found:
            for other, why in shorter[longer].items():
                found.setdefault(other, (longer, why))
    return found


def _equal(keys: Any, rank: Any) -> Iterator[list[int]]:
    """Groups of two or more places that have the same key, each from the longest to the shortest."""
    import numpy as np

    if not len(keys):
        return
    order = np.lexsort((rank, keys))
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    for start, end in zip(starts, np.append(starts[1:], len(ordered)), strict=True):
        if end - start > 1:
            yield order[start:end].tolist()


def _near(file: BinaryIO, which: int, enough: Any, rank: Any, similarity: float) -> Iterator[tuple[int, int]]:
    """Pairs whose sketches agree in at least `similarity` of their slots, the longer one first."""
    import numpy as np

    rows = 8 if similarity >= 0.85 else 4  # slots that must all agree for two to be looked at
    bands = PERMUTATIONS // rows
    among = np.flatnonzero(enough)
    seen: set[tuple[int, int]] = set()  # pairs that are alike meet in most bands; unlike ones in few

    def digests(places: list[int]) -> Any:
        starts = (place * NEAR_BYTES + which * DIGEST_BYTES for place in places)
        rows = b"".join(os.pread(file.fileno(), DIGEST_BYTES, start) for start in starts)
        return np.frombuffer(rows, np.uint32).reshape(-1, PERMUTATIONS)

    for first in range(0, bands, 4):
        keys = _band_keys(file, which, first * rows, min(4, bands - first), rows, len(enough))
        for band in range(keys.shape[1]):
            for equal in _equal(keys[among, band], rank[among]):
                group = [int(among[each]) for each in equal]
                while len(group) > 1:
                    longest, *others = group
                    new = [other for other in others if (longest, other) not in seen]
                    group = []
                    for at in range(0, len(new), _BLOCK):
                        block = new[at : at + _BLOCK]
                        agreeing = np.count_nonzero(digests(block) == digests([longest]), axis=1)
                        for other, slots in zip(block, agreeing.tolist(), strict=True):
                            if slots >= similarity * PERMUTATIONS:
                                seen.add((longest, other))
                                yield longest, other
                            else:
                                group.append(other)


def _band_keys(file: BinaryIO, which: int, slot: int, bands: int, rows: int, count: int) -> Any:
    """A number for each conversation and band that is equal where all slots of the band are."""
    import numpy as np

    # any odd multipliers do: a chance meeting costs one comparison more
    weights = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, rows + 1, dtype=np.uint64)
    keys = np.empty((count, bands), np.uint64)
    file.seek(0)
    for at in range(0, count, _BLOCK):
        block = np.frombuffer(file.read(_BLOCK * NEAR_BYTES), np.uint32).reshape(-1, 2, PERMUTATIONS)
        slots = block[:, which, slot : slot + bands * rows].reshape(len(block), bands, rows).astype(np.uint64)
        keys[at : at + len(block)] = (slots * weights).sum(axis=2, dtype=np.uint64)
    return keys
