"""How judges write scores: the patterns that `evaluation.verdicts` reads by. Pure.

A score is a number of 0 to 10 that stands alone: not in 2,000, f(8), 8%, 8^2, 7-8, 8th or 10/20. It counts only
beside words of judging; "8 suggestions", "10 units" and "2 of 3" are other numbers.
"""

import re

_VALUE = r"(?:10(?:\.0+)?|[0-9](?:\.[0-9]+)?)"
_OUT_OF = r"(?:\s*/\s*10(?![0-9]|\.[0-9])|\s+out\s+of\s+(?:a\s+possible\s+)?(?:10(?![0-9]|\.[0-9])|ten\b))"
_ALONE = r"(?![\w%^*°]|[.:/][0-9]|\s*[-–—~+*/^=<>]\s*[0-9(])"


def _score(name: str, *, comma: bool = False) -> str:
    """A score as the group `name`, and its `/10` as the group `<name>of`; `comma`: a comma and a digit may follow."""
    alone = _ALONE if comma else _ALONE + r"(?!,[0-9])"
    return rf"(?P<{name}>{_VALUE})(?:(?P<{name}of>{_OUT_OF})|{alone})"


_LABEL = (
    r"(?:\b(?:[Tt]he\s+)?(?:AI\s+)?"
    r"(?:[Aa]ssistant\s*#?\s*(?:[12]|[Oo]ne|[Tt]wo|A|B)|(?:[Ff]irst|[Ss]econd)\s+[Aa]ssistant)\b)"
)
_SECOND = re.compile(r"2|two|second|(?-i:B)", re.I)
LABEL = re.compile(_LABEL)
"""Either of the two, as judges call them."""


def assistant(label: str) -> int:
    """0 for the first shown, 1 for the second."""
    return int(bool(_SECOND.search(label)))


MARKS = re.compile(r"(?<!\w)(?:\*{1,3}|`{1,3}|_{1,3})(?=\S)|(?<=\S)(?:\*{1,3}|`{1,3}|_{1,3})(?!\w)")
"""Marks of emphasis around words; not those between numbers, which multiply."""
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
LINE_MARKS = re.compile(r"^\s*(?:#{1,6}\s|>\s?|[-•+*]\s|\|)\s*")
BRACKETED = re.compile(r"[(\[]+([^()\[\]]*)[)\]]+\.?")

HEAD = re.compile(
    r"^(?:(?:so|the|my|our|your|final|overall|total)[, ]+){0,4}"
    r"(?:scores?|ratings?|verdict|output)\s*(?:is|are)?\s*[:=]\s*",
    re.I,
)
"""What may stand before the scores of a line that holds nothing else."""
SCORE_WORD = re.compile(r"\b(?:scores?|scored|scoring|ratings?|rated|tuple|verdict)\b", re.I)

_OWNED = r"(?:['’]s?)?(?:\s+(?:final|overall))?(?:\s+(?:answer|response|score|rating))?"
_COLON = r"\s*(?:[:=|]|[-–—](?=\s))\s*"
_AND = r"(?:\s*[,;|&]\s*(?:and\s+)?|\s+and\s+|\s+vs\.?\s+|\s+)"

ONE = re.compile(_score("a") + r"\.?")
PAIR = re.compile(_score("a", comma=True) + _AND + _score("b") + r"\.?")
LABELLED_PAIR = re.compile(
    rf"(?P<la>{_LABEL}){_OWNED}(?:{_COLON}|\s+){_score('a')}(?:\s*[,;|.]\s*|\s+)(?:and\s+)?"
    rf"(?P<lb>{_LABEL}){_OWNED}(?:{_COLON}|\s+){_score('b')}\.?"
)
STATED_TUPLE = re.compile(
    rf"\b(?:scores?|ratings?|tuple|verdict)\b"
    rf"(?:(?:{_LABEL}|[^().;0-9]){{0,60}}?(?:\b(?:is|are|be|of|tuple|scores?|verdict|output|follows)|[:=])\s*:?)?\s*"
    rf"[(\[]\s*{_score('a', comma=True)}\s*,\s*{_score('b')}\s*[)\]]",
    re.I,
)

LABELLED = re.compile(
    rf"(?P<l>{_LABEL})(?P<owned>{_OWNED})(?:\s*\([^()]*\))?{_COLON}"
    rf"(?P<word>(?:[Ss]core|[Rr]ating)(?:\s+of|\s+is)?\s*[:=\-]?\s*)?[(\[]?{_score('a')}[)\]]?"
)
EXPLAINS = re.compile(
    rf"\s*(?:$|\.?\s*\(|[.,;|:!](?!\s*[0-9])|[-–—]\s|(?:and\s+)?{_LABEL}|(?:points?|for|because|due|since|as|and|while|but)\b)"
)
"""How a line may go on after a score that is marked as one."""
SAYS_NO_MORE = re.compile(rf"\s*(?:$|\(|[,;|]\s*(?:and\s+)?{_LABEL}|[-–—]\s)")
"""How a line may go on after a number that only stands behind a label."""

SCORE_LINE = re.compile(
    rf"(?:^|[.;,(]\s+|[-–—]\s)(?:[Tt]he\s+|[Mm]y\s+)?(?:[Ff]inal\s+|[Oo]verall\s+)?(?:[Ss]core|[Rr]ating)\s*"
    rf"(?:[:=]|is)\s*[(\[]?{_score('a')}(?=[)\]]?\s*(?:$|[.;,](?!\s*[0-9])|\(|[-–—]\s|points?\b))"
)
"""`Score: 8`, with no label of its own."""

_TAKES = (
    r"(?:receives?|earns?|deserves?|scores?|gets?|merits?|received|earned|got|scored|"
    r"(?:is|was|be|been|gets)\s+(?:given|rated|scored|awarded|assigned))"
)
_NAMED = (
    r"(?:(?:an?|the|with|at)\s+){0,2}(?:(?:slightly|much|higher|lower|final|overall|total|perfect|full)\s+){0,2}"
    r"(?:score|rating|mark)\s+of\s+(?:an?\s+)?"
)
_OFFERED = rf"(?:{_NAMED}|(?:with\s+|as\s+|at\s+)?an?\s+)"
_GOES_ON = (
    r"(?=\s*(?:$|[.;:!)\]]|,(?!\s*[0-9])|\(|[-–—]\s|points?\b|and\b(?!\s+[0-9])|"
    r"(?:for|due|because|while|whereas|as|since|but|overall|with|to|which|given|based)\b))"
)
_CLAUSE_ENDS = rf"(?=\s*(?:$|[.;!]|,?\s*(?:and|while|whereas|but)\s+{_LABEL}))"
_MUST = r"(?:(?:also|therefore|thus|would|should|will|can|only)\s+){0,2}"


def _given(lead: str, then: str = _GOES_ON) -> "re.Pattern[str]":
    return re.compile(rf"{lead}{_score('a')}{then}")


def _given_out_of_ten(lead: str) -> "re.Pattern[str]":
    return re.compile(rf"{lead}(?P<a>{_VALUE}){_OUT_OF}")


_TAKER = rf"(?P<l>{_LABEL}){_OWNED}\s+"
PROSE = (
    # Assistant 1 receives a score of 8; Assistant 1's answer gets an 8, while ...
    _given(rf"{_TAKER}{_MUST}{_TAKES}\s+{_OFFERED}"),
    _given_out_of_ten(rf"{_TAKER}{_MUST}{_TAKES}\s+"),
    # Assistant 1 scores 8.
    _given(rf"{_TAKER}{_MUST}{_TAKES}\s+", _CLAUSE_ENDS),
    # I would give Assistant 1 an 8 and Assistant 2 a 9; I rate Assistant 1 8/10
    _given(rf"{_TAKER}{_OFFERED}"),
    _given_out_of_ten(rf"{_TAKER}(?:as\s+|at\s+|with\s+)?"),
    # a score of 8 for Assistant 1; an 8 to Assistant 1
    re.compile(rf"(?<![\w.]){_OFFERED}{_score('a')}\s+(?:for|to)\s+(?P<l>{_LABEL})(?!\s+{_TAKES})"),
    re.compile(rf"(?<![\w.,/^*+=\-–$])(?P<a>{_VALUE}){_OUT_OF}\s+(?:for|to)\s+(?P<l>{_LABEL})(?!\s+{_TAKES})"),
    # the score for Assistant 1 is 8; Assistant 1's score is 8
    _given(rf"\b(?:[Ss]core|[Rr]ating)\s+(?:for|of)\s+(?P<l>{_LABEL}){_OWNED}\s*(?:\bis\b|\bwould\s+be\b|:)\s+"),
    _given(rf"(?P<l>{_LABEL})['’]s?\s+(?:final\s+|overall\s+)?(?:score|rating)\s+(?:is|would\s+be)\s+(?:an?\s+)?"),
)
"""One assistant and its score in a sentence."""

TOGETHER = re.compile(
    rf"(?:(?P<la>{_LABEL})\s+and\s+(?P<lb>{_LABEL})\s+{_MUST}(?:{_TAKES}\s+)?)?\b(?:[Ss]cores|[Rr]atings)\s+"
    rf"(?:(?:for|of)\s+(?P<lc>{_LABEL})\s+and\s+(?P<ld>{_LABEL})\s+)?(?:are|of|would\s+be)(?:\s+as\s+follows)?:?\s+"
    rf"{_score('a', comma=True)}(?:\s+and\s+|,\s*(?:and\s+)?){_score('b')}"
    r"(?=\s*(?:[.;!]|$|,?\s*respectively|,(?!\s*[0-9])))"
)
"""The scores of both in one phrase: `scores of 8 and 9`."""

FURTHER = re.compile(rf"(?<![\w.,/^*+=\-–$]){_score('a')}\s+(?:for|in|on)\s+(?!{_LABEL})")
"""A second score for a part of the same answer."""

SUPPOSED = re.compile(r"\b(?:if|unless|(?:would|could|should|might)\s+have|had\s+(?:it|they))\b", re.I)
"""Sentences of what was not: `it would have received a 10`."""


def sentences(line: str) -> list[str]:
    """The sentences of a line; not broken in `8.5` or before a small letter."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z(])", line)


def ends_as_head(line: str) -> bool:
    """Whether a line announces scores: `Scores`, or `... the scores are as follows:`."""
    return bool(re.fullmatch(r"(?:final |overall |the )*(?:scores?|ratings?|verdict)\.?:?", line, re.I)) or (
        line.endswith(":") and bool(SCORE_WORD.search(line))
    )
