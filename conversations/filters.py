"""One conversation through the rules: what it becomes, what was changed, and the rule that dropped it. Pure: the same
conversation and rules give the same result anywhere.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import msgspec

from conversations import html, language, personal
from conversations.errors import Unreadable
from conversations.rules import Action, Rules
from conversations.schema import Conversation, Turn


class Dropped(Exception):
    """A rule says no; the first argument is its name, the second what it saw."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.detail = detail


def clean(conversation: Conversation, rules: Rules) -> tuple[Conversation, dict[str, Any]]:
    """The conversation as it is kept, and how many times which rule changed it. Raises Dropped, and Unreadable
    where HTML cannot be converted.
    """
    changes: dict[str, Any] = {}
    turns = conversation.conversations
    for name, step in _STEPS.items():
        if getattr(rules, name).on:
            turns = step(turns, rules, changes)
    return msgspec.structs.replace(conversation, conversations=turns), changes


def _html(turns: list[Turn], rules: Rules, changes: dict[str, Any]) -> list[Turn]:
    return _answers(turns, "html", _markdown, changes)


def _markdown(text: str, number: int) -> str:
    try:
        return html.converted(text)
    except html.TooDeep as failure:
        raise Unreadable("html", f"turn {number}: {failure}") from None


def _boilerplate(turns: list[Turn], rules: Rules, changes: dict[str, Any]) -> list[Turn]:
    said = _together(turns)
    if "Copy code" not in said and not _may_have(rules.boilerplate.lines, said):
        return turns
    lines = _any_line(tuple(rules.boilerplate.lines))

    def without(text: str, number: int) -> str:
        text = _FENCE_WITH_BUTTON.sub(r"\1\2\n", text) if "Copy code" in text else text
        return lines.sub("", text) if lines.search(text) else text

    return _answers(turns, "boilerplate", without, changes)


_FENCE_WITH_BUTTON = re.compile(
    r"^([ >]*```)[ ]*(?:\n[ >]*)?([\w#+.-]*?)[ ]*(?:\n[ >]*)?Copy code[ ]*(?:\n|(?=\S))", re.M
)
"""A code block copied with its button: the language before it, the code after it, on the same line or the next."""


def _together(turns: list[Turn]) -> str:
    """All that was said: one look that finds nothing spares one at each turn."""
    return "\n".join([turn.value for turn in turns])


def _may_have(phrases: tuple[str, ...], text: str) -> bool:
    """Whether a look for any of the phrases by a regular expression, their case ignored, can pay: most texts have none,
    and a look for plain strings is ten times as fast.
    """
    if not text.isascii():  # where letters have more than two forms
        return True
    small = text.lower()
    return any(phrase in small for phrase in _small(phrases))


@functools.cache
def _small(phrases: tuple[str, ...]) -> list[str]:
    return [phrase.lower() for phrase in phrases]


@functools.cache
def _any_line(lines: tuple[str, ...]) -> re.Pattern[str]:
    any_of = "|".join(re.escape(line) for line in lines) or r"(?!)"
    return re.compile(rf"^[ \t]*(?:{any_of})\.?[ \t]*(?:\n|\Z)", re.M | re.I)


def _edges(turns: list[Turn], rules: Rules, changes: dict[str, Any]) -> list[Turn]:
    """System turns stay where they are the first; answers before the first question go, and what follows the last
    answer that says something.
    """
    system = turns[:1] if turns and turns[0].speaker == "system" else []
    spoken = turns[len(system) :]
    start = next((at for at, turn in enumerate(spoken) if turn.speaker == "human"), len(spoken))
    end = len(spoken)
    while end > start and (spoken[end - 1].speaker != "gpt" or not spoken[end - 1].value.strip()):
        end -= 1
    if end <= start and rules.empty_turns.on and any(turn.speaker == "gpt" for turn in spoken[start:]):
        raise Dropped("empty_turns", "no answer has text")
    if end <= start:
        raise Dropped("edges", "no question with an answer" if turns else "no turns")
    if end - start < len(spoken):
        changes["edges"] = len(spoken) - (end - start)
    return system + spoken[start:end]


def _role_order(turns: list[Turn], rules: Rules, changes: dict[str, Any]) -> list[Turn]:
    first = 1 if turns and turns[0].speaker == "system" else 0
    expected = ("human", "gpt")
    for at, turn in enumerate(turns[first:]):
        if turn.speaker != expected[at % 2]:
            detail = f"turn {first + at + 1} is the {turn.speaker}'s where the {expected[at % 2]}'s belongs"
            return _cut(turns, first + at, rules.role_order.action, "role_order", detail, changes)
    return turns


def _empty_turns(turns: list[Turn], rules: Rules, changes: dict[str, Any]) -> list[Turn]:
    for at, turn in enumerate(turns):
        if not turn.value.strip():
            if turn.speaker == "system":
                changes["empty_turns"] = 1
                return _empty_turns(turns[:at] + turns[at + 1 :], rules, changes)
            return _cut(turns, at, rules.empty_turns.action, "empty_turns", f"turn {at + 1} has no text", changes)
    return turns


def _service_errors(turns: list[Turn], rules: Rules, changes: dict[str, Any]) -> list[Turn]:
    is_error = _error_test(tuple(rules.service_errors.phrases))
    for at, turn in enumerate(turns):
        if turn.speaker == "gpt" and is_error(turn.value):
            detail = f"turn {at + 1}: {turn.value.strip()[:60]!r}"
            return _cut(turns, at, rules.service_errors.action, "service_errors", detail, changes)
    return turns


@functools.cache
def _error_test(phrases: tuple[str, ...]) -> Callable[[str], bool]:
    any_of = "|".join(re.escape(phrase) for phrase in phrases) or r"(?!)"
    # At most a sentence around it: an answer that explains such a message is no error.
    alone = re.compile(rf"[!*\W]*(?:{any_of})[^\n]{{0,160}}\s*\Z", re.I)
    last_line = re.compile(rf"\n[!*\s]*(?:{any_of})[^\n]{{0,160}}\s*\Z", re.I)

    def is_error(text: str) -> bool:
        end = text[-400:]
        before = end.rstrip().rfind("\n")
        return bool(alone.match(text) or (before >= 0 and last_line.match(end, before)))

    return is_error


def _too_short(turns: list[Turn], rules: Rules, changes: dict[str, Any]) -> list[Turn]:
    answers = [turn.value for turn in turns if turn.speaker == "gpt"]
    if len(answers) < rules.too_short.rounds:
        raise Dropped("too_short", f"{len(answers)} rounds, fewer than {rules.too_short.rounds}")
    characters = sum(len(answer.strip()) for answer in answers)
    if characters < rules.too_short.characters:
        raise Dropped("too_short", f"answers of {characters} characters, fewer than {rules.too_short.characters}")
    return turns


def _unsafe(turns: list[Turn], rules: Rules, changes: dict[str, Any]) -> list[Turn]:
    listed = _any_phrase(rules.unsafe.phrases)
    if not listed(_together(turns)):
        return turns
    for number, turn in enumerate(turns, 1):
        if found := listed(turn.value):
            raise Dropped("unsafe", f"turn {number} has {found[0].lower()!r}")
    return turns


@functools.cache
def _any_phrase(phrases: tuple[str, ...]) -> Callable[[str], re.Match[str] | None]:
    """What finds one of the phrases, whatever their case and spaces."""
    split = [phrase.split() for phrase in phrases if phrase.strip()]
    spaced = "|".join(r"\s+".join(map(re.escape, words)) for words in split)
    pattern = re.compile(rf"(?<!\w)(?:{spaced or '(?!)'})(?!\w)", re.I)
    last_words = {words[-1].casefold() for words in split}

    def find(text: str) -> re.Match[str] | None:
        if text.isascii():  # a look for the last words alone is ten times as fast
            small = text.lower()
            if not any(word in small for word in last_words):
                return None
        return pattern.search(text)

    return find


def _language(turns: list[Turn], rules: Rules, changes: dict[str, Any]) -> list[Turn]:
    wanted = rules.language.keep
    if not wanted:
        return turns
    judged = other = 0
    seen: set[str] = set()
    for turn in turns:
        prose, count = language.letters(turn.value)
        if turn.speaker == "system" or count < rules.language.characters:
            continue
        judged += count
        code = language.detect(prose)
        if code not in wanted:
            seen.add(code)
            other += count
    if judged and other > rules.language.share * judged:
        raise Dropped("language", f"{100 * other // judged}% of it is in {', '.join(sorted(seen))}")
    return turns


def _personal_data(turns: list[Turn], rules: Rules, changes: dict[str, Any]) -> list[Turn]:
    if not personal.may_have(_together(turns), rules.personal_data.kinds):
        return turns
    counts: dict[str, int] = {}
    masked = []
    for number, turn in enumerate(turns, 1):
        text, found = personal.mask(turn.value, rules.personal_data.kinds)
        if found and rules.personal_data.action == "drop":
            raise Dropped("personal_data", f"turn {number} has {', '.join(found)}")
        for kind, count in found.items():
            counts[kind] = counts.get(kind, 0) + count
        masked.append(Turn(turn.speaker, text) if found else turn)
    if counts:
        changes["personal_data"] = counts
    return masked


_STEPS: dict[str, Callable[[list[Turn], Rules, dict[str, Any]], list[Turn]]] = {
    "html": _html,
    "boilerplate": _boilerplate,
    "edges": _edges,
    "role_order": _role_order,
    "empty_turns": _empty_turns,
    "service_errors": _service_errors,
    "too_short": _too_short,
    "unsafe": _unsafe,
    "language": _language,
    "personal_data": _personal_data,
}


def _answers(turns: list[Turn], rule: str, change: Callable[[str, int], str], changes: dict[str, Any]) -> list[Turn]:
    changed = 0
    result = []
    for number, turn in enumerate(turns, 1):
        value = change(turn.value, number) if turn.speaker == "gpt" else turn.value
        if value is not turn.value and value != turn.value:
            changed += 1
            turn = Turn("gpt", value)
        result.append(turn)
    if changed:
        changes[rule] = changed
    return result


def _cut(turns: list[Turn], at: int, action: Action, rule: str, detail: str, changes: dict[str, Any]) -> list[Turn]:
    """The whole rounds before the fault at turn `at`; Dropped where there is none, or the rule drops."""
    first = 1 if turns and turns[0].speaker == "system" else 0
    rounds = (at - first) // 2
    if action == "drop" or rounds < 1:
        raise Dropped(rule, detail)
    kept = turns[: first + 2 * rounds]
    changes[rule] = len(turns) - len(kept)
    return kept
