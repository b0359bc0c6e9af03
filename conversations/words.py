"""Counts the tokens of a text word by word, so that each word is tokenized once however often it comes. Only for
tokenizers of which no token reaches over a single space between two words, as byte-level BPE ones.
"""

import json
import re
from itertools import product
from typing import Any

_WORDS = re.compile(r"(?<=\S)(?= \S)")
"""Where a text is cut: before a single space. More white space than that stays with what is before it."""
_MOST = 200_000
_PRE_TOKENIZERS = {"ByteLevel", "Split", "Digits", "Punctuation"}
_CHARACTERS = "aZé漢ا9²'.,-_/\\(&<|$+`\"#🙂\u0301\u200d\u3002"
"""One of each kind that a pre-tokenizer tells apart."""


class Words:
    """The counts of words by a tokenizer of the tokenizers library that `allows` it."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._counts: dict[str, int] = {}

    def count(self, text: str) -> int:
        words = _WORDS.split(text)
        counts = self._counts
        if new := [word for word in set(words) if word not in counts]:
            if len(counts) > _MOST:
                counts.clear()
                new = list(set(words))
            encoded = self._backend.encode_batch_fast(new, add_special_tokens=False)
            counts.update(zip(new, map(len, encoded), strict=True))
        return sum(map(counts.__getitem__, words))


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
