"""Which language a text is in, where it is long enough to tell."""

import functools
import re
from typing import Any

_NOT_PROSE = re.compile(r"^[ >]*(```+|~~~+).*?(?:^[ >]*\1|\Z)|`[^`\n]*`|https?://\S+|\$\$.*?\$\$", re.M | re.S)
_LETTERS = re.compile(r"[^\W\d_]")
ENOUGH = 4000
"""Characters that are looked at; more do not change the answer."""


def letters(text: str) -> tuple[str, int]:
    """The prose of a text, without code and addresses, and how many letters it has."""
    prose = _NOT_PROSE.sub(" ", text)
    return prose, len(_LETTERS.findall(prose[: 4 * ENOUGH]))


def detect(prose: str) -> str:
    """The ISO 639-1 code of a text's language; a guess where the text is short."""
    code: str = _identifier().classify(prose[:ENOUGH])[0]
    return code


@functools.cache
def _identifier() -> Any:
    import py3langid

    return py3langid
