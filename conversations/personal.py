"""Personal data in text: e-mail addresses, phone numbers, secret keys. Rather misses one than masks what is none, such
as a version, a date, a repository's address or a number in a table.
"""

import re
from collections.abc import Callable, Sequence

_EMAIL = re.compile(
    r"(?<![\w.+:/@-])(?!(?:git|noreply|no-reply)@)[A-Za-z0-9](?:[\w.+-]{0,62}[A-Za-z0-9_])?"
    r"@(?!(?:[\w-]+\.)*(?:example\.(?:com|org|net)|example|test|invalid|localhost)\b)"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w@]|:[\w/])"
)
_PHONE = re.compile(
    r"(?<![\w.+/=:#$€£-])(?:"
    r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"  # +49 30 1234567
    r"|(?:1[ .-])?\(\d{3}\) ?\d{3}[ .-]\d{4}"  # (415) 555-2671
    r"|(?:1[ .-])?[2-9]\d{2}([ .-])[2-9]\d{2}\1\d{4}"  # 415-555-2671
    r")(?![\w-]|\.\d|[ .-]\d)"
)
_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----.*?(?:-----END (?:[A-Z]+ )*PRIVATE KEY-----|\Z)"
    r"|\b(?:sk|pk|rk)-(?:proj-|ant-|live-|test-)?(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{20,}"
    r"|\b[srp]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}|\bglpat-[A-Za-z0-9_-]{20,}"
    r"|\bhf_[A-Za-z0-9]{30,}|\bxox[abprs]-[A-Za-z0-9-]{20,}|\bAIza[0-9A-Za-z_-]{35}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    re.S,
)
_KEY_SIGNS = ("k-", "k_", "at-", "at_", "PRIVATE KEY", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "hf_",
              "xox", "AIza", "eyJ")  # fmt: skip
_GROUPS_OF_DIGITS = re.compile(r"\d[ .)-]+\d{3}")
_ASCII = [chr(code) for code in range(128)]
_DIGITS = "".join("0" if each.isdigit() else " " if each in " .)-" else "+" if each == "+" else "x" for each in _ASCII)
_OF_KEYS = "".join("x" if each.isalnum() or each in "-_" else " " for each in _ASCII)
"""Tables to translate by. What is left is the shape of a text, and a look for a shape costs a tenth of a pattern."""


def _may_have_key(text: str) -> bool:
    # all keys but these two have twenty characters in a row
    if text.isascii() and "PRIVATE KEY" not in text and "eyJ" not in text and "x" * 20 not in text.translate(_OF_KEYS):
        return False
    return any(sign in text for sign in _KEY_SIGNS)


def _may_have_phone(text: str) -> bool:
    if text.isascii():
        shape = text.translate(_DIGITS)
        if "+0" in shape:
            return True
        if "0 000" not in shape and "  000" not in shape:
            return False
    return "+" in text or _GROUPS_OF_DIGITS.search(text) is not None


# kind -> what it looks like, and what must be there for a look to pay. Keys first: a part of one may be a number.
_KINDS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "key": (_KEY, _may_have_key),
    "email": (_EMAIL, lambda text: "@" in text),
    "phone": (_PHONE, _may_have_phone),
}


def may_have(text: str, kinds: Sequence[str]) -> bool:
    """Whether a look for these kinds pays."""
    return any(kind in kinds and hint(text) for kind, (_, hint) in _KINDS.items())


def mask(text: str, kinds: Sequence[str]) -> tuple[str, dict[str, int]]:
    """The text with each find replaced by its kind in brackets, and how many there were of each kind."""
    counts: dict[str, int] = {}
    for kind, (pattern, hint) in _KINDS.items():
        if kind in kinds and hint(text):
            text, count = pattern.subn(f"[{kind}]", text)
            if count:
                counts[kind] = count
    return text, counts
