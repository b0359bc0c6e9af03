"""Which conversations are the same, exactly or nearly, and which of them is kept. What is compared is small and of one
size for every conversation, and lies in files; in memory there are some 150 bytes of each at a time.
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
_BLOCK = 256
"""Sketches that are read at a time."""
REASONS = ("same", "beginning", "same_opening", "near", "near_opening")
"""Why one is merged into another; where several hold, the first."""

_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W぀-ヿ㐀-鿿가-힯]+")
"""A word, or a character of a script that puts no spaces between words."""
_ASCII = "".join(chr(code) if chr(code).isalnum() or chr(code) == "_" else " " for code in range(128))
"""Blanks for what is in no word, as a table to translate by."""
_SPACES = bytes(code for code in range(128) if chr(code).isspace())


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
    return list(map(" ".join, zip(words, words[1:], words[2:], strict=False)))


def _hashes(turns: list[Turn]) -> list[bytes]:
    """Of what was said up to each round, the first to the last."""
    digest = hashlib.blake2b(digest_size=16)
    found = []
    for number, turn in enumerate(turns):
        said = turn.value.lower()
        # without white space, by either way
        packed = said.encode().translate(None, _SPACES) if said.isascii() else "".join(said.split()).encode()
        digest.update(b"%s\1%s\0" % (turn.speaker.encode(), packed))
        if number % 2 or number == len(turns) - 1:
            found.append(digest.digest())
    return found


def _packed(sketch: Any) -> bytes:
    return array.array("I", sketch.digest()).tobytes()


def merged(work: Path, rule: Duplicates) -> tuple[Any, Any]:
    """For each conversation, by its place in the files of `work`: the place of the one it is merged into, -1 where it
    is kept, and which of `REASONS` it is; two arrays. The kept one is the longest of those like it, and of equally
    long ones the first. Both are empty where duplicates are left.
    """
    import numpy as np

    hashes, longest_first, enough, beginnings = _read_marks(work / "marks")
    count = len(hashes)
    into, why = np.full(count, -1, np.int32), np.zeros(count, np.int8)
    if not rule.on or not count:
        return into, why
    places = np.arange(count, dtype=np.int32)
    # rank 0 is the longest; every comparison is of a longer one with a shorter
    rank = np.empty(count, np.int32)
    rank[longest_first] = places
    with (work / "alike").open("w+b") as alike:

        def add(longer: Any, other: Any, reason: Any) -> None:
            """By rank, then by reason, in one number each."""
            (rank[longer].astype(np.int64) << 34 | np.int64(reason) << 31 | other).tofile(alike)

        if rule.conversations:
            with (work / "beginnings").open("rb") as file:
                begun = np.fromfile(file, "S16")
            owners = np.concatenate([places, np.repeat(places, beginnings)])
            longest, other = _pairs(np.concatenate([hashes[:, 0], begun]), rank[owners])
            longest, other = longest[other < count], other[other < count]
            add(owners[longest], other, np.where(longest < count, REASONS.index("same"), REASONS.index("beginning")))
        if rule.openings:
            among = np.flatnonzero(enough[:, 1])
            longest, other = _pairs(hashes[among, 1], rank[among])
            add(among[longest], among[other], REASONS.index("same_opening"))
        del hashes
        if rule.similarity < 1:
            with (work / "near").open("rb") as near:
                for which, name in [(0, "near")] * rule.conversations + [(1, "near_opening")] * rule.openings:
                    for longer, shorter in _near(near, which, enough[:, which], rank, rule.similarity):
                        add(longer, shorter, REASONS.index(name))
        alike.seek(0)
        _settle(np.fromfile(alike, np.int64), longest_first, into, why)
    return into, why


def _read_marks(path: Path) -> tuple[Any, Any, Any, Any]:
    """Of the conversations their two hashes, their places from the longest to the shortest, whether each text is long
    enough to be near another, and how many beginnings each has.
    """
    import numpy as np

    layout = [("hash", "S16", 2), ("characters", "<u8"), ("enough", "?", 2), ("beginnings", "<u2"), ("", "V4")]
    with path.open("rb") as file:
        table = np.fromfile(file, np.dtype(layout))
    longest_first = np.argsort(-table["characters"].astype(np.int64), kind="stable").astype(np.int32)
    return table["hash"].copy(), longest_first, table["enough"].copy(), table["beginnings"].copy()


def _settle(alike: Any, longest_first: Any, into: Any, why: Any) -> None:
    """Fill `into` and `why`, the longest first: one that is merged itself takes no other."""
    import numpy as np

    alike.sort()
    start = 0
    while start < len(alike):
        rank = int(alike[start]) >> 34
        end = int(np.searchsorted(alike, (rank + 1) << 34))
        longer = longest_first[rank]
        if into[longer] < 0:
            # of several reasons the first counts, so it is written last
            those = alike[start:end][::-1]
            other = those & 0x7FFFFFFF
            free = into[other] < 0
            into[other[free]], why[other[free]] = longer, (those[free] >> 31) & 7
        start = end


def _pairs(keys: Any, rank: Any) -> tuple[Any, Any]:
    """Of each group of equal keys the longest and each other: two arrays of places in `keys`."""
    import numpy as np

    order = np.lexsort((rank, keys)).astype(np.int32)
    ordered = keys[order]
    begins = np.ones(len(keys), bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(begins)
    longest = np.repeat(order[starts], np.diff(np.append(starts, len(keys))))
    return longest[~begins], order[~begins]


def _near(file: BinaryIO, which: int, enough: Any, rank: Any, similarity: float) -> Iterator[tuple[Any, Any]]:
    """Pairs whose sketches agree in at least `similarity` of their slots: arrays of the longer and the shorter ones."""
    import numpy as np

    rows = 8 if similarity >= 0.85 else 4  # slots that must all agree for two to be looked at
    bands = PERMUTATIONS // rows
    among = np.flatnonzero(enough).astype(np.int32)
    # Pairs that are alike meet in most bands; unlike ones in few. The last is none, so that a search ends at one.
    seen = np.array([np.iinfo(np.int64).max])

    def digests(places: Any) -> Any:
        different, at = np.unique(places, return_inverse=True)
        starts = (place * NEAR_BYTES + which * DIGEST_BYTES for place in different.tolist())
        read = b"".join(os.pread(file.fileno(), DIGEST_BYTES, start) for start in starts)
        return np.frombuffer(read, np.uint32).reshape(-1, PERMUTATIONS)[at]

    for first in range(0, bands, 2):
        keys = _band_keys(file, which, first * rows, 2, rows, len(enough))
        for band in range(keys.shape[1]):
            left, found = among, [seen]
            while len(left):  # each time round the longest of each group that is left is compared with the others
                longest, other = (left[each] for each in _pairs(keys[left, band], rank[left]))
                pairs = longest.astype(np.int64) * len(enough) + other
                new = seen[np.searchsorted(seen[:-1], pairs)] != pairs
                longest, other, pairs = longest[new], other[new], pairs[new]
                near = np.zeros(len(pairs), bool)
                for at in range(0, len(pairs), _BLOCK):
                    block = slice(at, at + _BLOCK)
                    slots = np.count_nonzero(digests(longest[block]) == digests(other[block]), axis=1)
                    near[block] = slots >= similarity * PERMUTATIONS
                found.append(pairs[near])
                yield longest[near], other[near]
                left = other[~near]
            seen = np.concatenate(found)
            seen.sort()


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
