"""A judge's text to its scores, strictly: what the text states, or the reason why it states nothing. Pure.
Nothing is guessed, repaired or defaulted; a text that says two different things is not read.

Where scores are looked for; the first place that has them counts:
  first line   it holds the scores and nothing else, as the judge is asked: `8 9`, `8/10 and 9/10`,
               `Assistant 2: 9, Assistant 1: 8`
  stated       anywhere, where words say that it is a score: labelled lines under `Scores:`, `Assistant 1: 8/10`,
               `Assistant 1 receives an 8`, a tuple after the word score, a last line that is two scores
  labelled     lines `Assistant 1: 8` and `Assistant 2: 9` that say no more

Example: "First, I solve it: f(2) = 39. [...] Assistant 1: 1 [...] The scores are (1, 3)." states (1, 3); 39 and 2 are
numbers of the question, which nothing calls a score. The patterns are in `evaluation.phrases`.
"""

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from evaluation import phrases

Where = Literal["first line", "stated", "labelled"]


class Verdict(msgspec.Struct, frozen=True):
    """What a judge gave: two scores in the order in which it saw the answers, or one for an answer seen alone."""

    scores: tuple[float, ...]
    where: Where


class Unreadable(msgspec.Struct, frozen=True):
    """A text without a verdict, and why."""

    reason: str


class _Mention(msgspec.Struct, frozen=True):
    """One score given to one of the two."""

    assistant: int
    """0 or 1."""
    score: float
    stated: bool
    """Words say that it is a score."""


Pair = tuple[float, float]


def read_pair(text: str, *, cut: bool = False) -> Verdict | Unreadable:
    """The scores of the first and the second answer shown. `cut`: the text ended at a limit of tokens, so its last
    line may be half of one, and what it would have said last is not known; only a whole first line counts."""
    lines = _lines(text)
    if refused := _refused(text, lines, cut):
        return refused
    if first := _pair_line(lines[0]):
        return Verdict(first, "first line")
    if cut:
        return Unreadable("cut off, and its first line is not two scores")
    mentions = list(_mentions(lines))
    marked = [{m.score for m in mentions if m.assistant == each and m.stated} for each in (0, 1)]
    bare = [{m.score for m in mentions if m.assistant == each} for each in (0, 1)]
    return (
        _settled(marked, set(_pairs(lines)), "stated")
        or _settled([marked[each] or bare[each] for each in (0, 1)], set(), "labelled")
        or Unreadable("it states no two scores")
    )


def _settled(told: list[set[float]], pairs: set[Pair], where: Where) -> Verdict | Unreadable | None:
    """The one pair that what each was given and what was stated together agree on; None where there is none."""
    if any(len(scores) > 1 for scores in told):
        return Unreadable("it gives one assistant different scores")
    if all(told):
        pairs = pairs | {(min(told[0]), min(told[1]))}
    if len(pairs) > 1:
        return Unreadable("it gives different pairs of scores")
    return Verdict(min(pairs), where) if pairs else None


def read_single(text: str, *, cut: bool = False) -> Verdict | Unreadable:
    """The one score of an answer judged alone."""
    lines = _lines(text)
    if refused := _refused(text, lines, cut):
        return refused
    if (first := _one_line(lines[0])) is not None:
        return Verdict((first,), "first line")
    if cut:
        return Unreadable("cut off, and its first line is not a score")
    stated = {float(found["a"]) for line in lines for found in phrases.SCORE_LINE.finditer(line)}
    if (last := _one_line(lines[-1])) is not None:
        stated.add(last)
    if len(stated) > 1:
        return Unreadable("it gives different scores")
    return Verdict((stated.pop(),), "stated") if stated else Unreadable("it states no score")


def _refused(text: str, lines: list[str], cut: bool) -> Unreadable | None:
    if not lines:
        return Unreadable("empty")
    if cut and "\n" not in text.lstrip():
        return Unreadable("cut off within the first line")
    return None


def _lines(text: str) -> list[str]:
    """Lines that say something, without Markdown's and LaTeX's marks around words."""
    bare = re.sub(r"[ \t]+", " ", phrases.MARKS.sub("", phrases.BOXED.sub(r"\1", text)))
    return [line for raw in bare.splitlines() if (line := phrases.LINE_MARKS.sub("", raw).strip(" \t|"))]


def _pair_line(line: str) -> Pair | None:
    """The scores of a line that holds two and nothing else."""
    line = phrases.HEAD.sub("", line, count=1)
    if inside := phrases.BRACKETED.fullmatch(line):
        line = inside[1].strip()
    if found := phrases.LABELLED_PAIR.fullmatch(line):
        return _ordered(found, "la", "lb")
    found = phrases.PAIR.fullmatch(line)
    if found is None:
        return None
    first, second = found["aof"], found["bof"]
    if bool(first) != bool(second) and not (second and "out" in second):  # `5 8/10` may be a mixed number
        return None
    return float(found["a"]), float(found["b"])


def _one_line(line: str) -> float | None:
    """The score of a line that holds one and nothing else."""
    line = phrases.HEAD.sub("", line, count=1)
    if inside := phrases.BRACKETED.fullmatch(line):
        line = inside[1].strip()
    found = phrases.ONE.fullmatch(line)
    return float(found["a"]) if found else None


def _pairs(lines: list[str]) -> Iterator[Pair]:
    """Two scores that are stated together."""
    for index, line in enumerate(lines):
        before = lines[index - 1] if index else ""
        headed = phrases.ends_as_head(before)
        last = index == len(lines) - 1 and index > 0 and not before.endswith(":")
        if (headed or last) and (pair := _pair_line(line)):
            yield pair
        for found in phrases.STATED_TUPLE.finditer(line):
            yield float(found["a"]), float(found["b"])
        for sentence in phrases.sentences(line):
            for found in phrases.TOGETHER.finditer(sentence):
                if pair := _ordered(found, "la" if found["la"] else "lc", "lb" if found["lb"] else "ld"):
                    yield pair


def _ordered(found: "re.Match[str]", first: str, second: str) -> Pair | None:
    """The pair of a match in the assistants' order; None where both labels name the same one."""
    pair = float(found["a"]), float(found["b"])
    if not found[first]:
        return pair
    labels = phrases.assistant(found[first]), phrases.assistant(found[second])
    if labels[0] == labels[1]:
        return None
    return pair if labels == (0, 1) else (pair[1], pair[0])


def _mentions(lines: list[str]) -> Iterator[_Mention]:
    """Every score given to one assistant."""
    headed = False
    section: int | None = None
    for line in lines:
        labels = [phrases.assistant(found[0]) for found in phrases.LABEL.finditer(line)]
        if labels and phrases.LABEL.match(line):
            section = labels[0] if len(labels) == 1 else None
        elif len(set(labels)) > 1:
            section = None
        yield from _labelled(line, headed)
        yield from _prose(line)
        if section is not None:
            yield from (_Mention(section, float(m["a"]), True) for m in phrases.SCORE_LINE.finditer(line))
        headed = headed or phrases.ends_as_head(line)


def _labelled(line: str, headed: bool) -> Iterator[_Mention]:
    """`Assistant 1: 8`, and whether the words around it say that it is a score."""
    for found in phrases.LABELLED.finditer(line):
        at_start = found.start() == 0
        before = line[: found.start()]
        stated = bool(found["aof"] or found["word"] or phrases.SCORE_WORD.search(before + found["owned"]))
        stated = stated or (headed and at_start)
        rest = line[found.end() :]
        goes_on = phrases.EXPLAINS if stated else phrases.SAYS_NO_MORE
        if (stated or at_start) and goes_on.match(rest):
            yield _Mention(phrases.assistant(found["l"]), float(found["a"]), stated)
            yield from _others(found["l"], rest)


def _prose(line: str) -> Iterator[_Mention]:
    """`Assistant 1 receives an 8, while Assistant 2 receives a 9`."""
    for sentence in phrases.sentences(line):
        if phrases.SUPPOSED.search(sentence):
            continue
        for pattern in phrases.PROSE:
            for found in pattern.finditer(sentence):
                yield _Mention(phrases.assistant(found["l"]), float(found["a"]), True)
                yield from _others(found["l"], sentence[found.end() :])


def _others(label: str, rest: str) -> Iterator[_Mention]:
    """Further scores of the same assistant (`8 for style, 9 for facts`): with them nobody can say which counts."""
    following = phrases.LABEL.split(rest, maxsplit=1)[0]
    for found in phrases.FURTHER.finditer(following):
        yield _Mention(phrases.assistant(label), float(found["a"]), True)
