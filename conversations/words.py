"""Counts the tokens of a text word by word, so that each word is tokenized once however often it comes. Only for
tokenizers of which no token reaches over a single space between two words, as byte-level BPE ones.
"""

import json
import re
from itertools import product
from typing import Any

_WORDS = re.compile(r"(?<=\S)(?= \S)")
"""Where a text is cut: before a single space. More white space than that stays with what is before it."""
_MOST_WORDS, _MOST_LINES, _LONG = 50_000, 10_000, 1_000_000
"""What is remembered at most, and the characters of a text that is not remembered: memory stays bounded."""
_PRE_TOKENIZERS = {"ByteLevel", "Split", "Digits", "Punctuation"}
_CHARACTERS = "aZé漢ا9²'.,-_/\\(&<|$+`\"#🙂\u0301\u200d\u3002"
"""One of each kind that a pre-tokenizer tells apart."""


class Words:
    """The counts of words by a tokenizer of the tokenizers library that `allows` it. Lines are remembered too, because
    a turn is counted in its round, in its piece and in the whole.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._inner: dict[str, int] = {}
        """Of words within a line, each with the space before it, which is not in the key."""
        self._across: dict[str, int] = {}
        """Of words that go over the ends of lines."""
        self._lines: dict[str, tuple[str, int, str]] = {}
        """Of a line its first word, the tokens of those between, its last word; empty where it has but one."""

    def count(self, text: str) -> int:
        lines = text.split("\n")
        if new := set(lines).difference(self._lines):
            if len(self._lines) > _MOST_LINES:
                self._lines.clear()
                new = set(lines)
            self._read(new)
        total = 0
        word = ""
        across = []  # words that go over the ends of lines
        for first, tokens, last in map(self._lines.__getitem__, lines):
            if last:
                across.append(word + first)
                total += tokens
                word = last + "\n"
            else:
                word += first + "\n"
        across.append(word[:-1])
        total += sum(map(self._tokens(across, self._across).__getitem__, across))
        if len(text) > _LONG:
            self._lines.clear()
            self._inner.clear()
            self._across.clear()
        return total

    def _read(self, lines: set[str]) -> None:
        words = {line: _split(line) for line in lines}
        counts = self._tokens([word for each in words.values() for word in each[1:-1]], self._inner, before=" ")
        for line, each in words.items():
            last = f" {each[-1]}" if len(each) > 1 else ""
            self._lines[line] = each[0], sum(map(counts.__getitem__, each[1:-1])), last

    def _tokens(self, words: list[str], counts: dict[str, int], before: str = "") -> dict[str, int]:
        """The counts, those of these words among them."""
        if new := list(set(words).difference(counts)):
            if len(counts) > _MOST_WORDS:
                counts.clear()
                new = list(set(words))
            encoded = self._backend.encode_batch_fast([before + word for word in new], add_special_tokens=False)
            counts.update(zip(new, map(len, encoded), strict=True))
        return counts


def _split(line: str) -> list[str]:
    """The words of a line without the single spaces before them."""
    words = line.split(" ")
    if words == line.split():  # most lines have no other white space, and this is faster
        return words
    first, *more = _WORDS.split(line)
    return [first, *(word[1:] for word in more)]


def _parts(said: dict[str, Any] | None, several: str) -> list[dict[str, Any]]:
    """A part of a tokenizer's description as those it is made of."""
    if said is None:
        return []
    parts: list[dict[str, Any]] = said[several] if said["type"] == "Sequence" else [said]
    return parts


def allows(backend: Any) -> bool:
    """Whether the tokens of a text are those of its words, one after another."""
    said = json.loads(backend.to_str())
    parts = _parts(said["pre_tokenizer"], "pretokenizers")
    names = {part["type"] for part in parts}
    if said["model"]["type"] != "BPE" or said["model"].get("dropout") or "ByteLevel" not in names:
        return False
    if not names <= _PRE_TOKENIZERS or any(part.get("add_prefix_space") for part in parts):
        return False
    if any(part["type"] != "NFC" for part in _parts(said["normalizer"], "normalizers")):
        return False
    if said["truncation"] or said["padding"]:
        return False
    if any(
        token["lstrip"] or token["rstrip"] or token["single_word"] or re.search(r"\s", token["content"])
        for token in said["added_tokens"]
    ):
        return False
    return all(
        any(start == len(one) for _, (start, _) in backend.pre_tokenizer.pre_tokenize_str(f"{one} {two}"))
        for one, two in product([*_CHARACTERS, "12", "'s"], _CHARACTERS)
    )
