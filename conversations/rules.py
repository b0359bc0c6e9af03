"""The rules of cleaning, each a section of a TOML file that can be tuned or switched off. Light: the command line
reads it too.
"""

import difflib
import re
from pathlib import Path
from typing import Literal

import msgspec

from conversations.errors import ConversationsError

Action = Literal["cut", "drop"]
"""`cut` keeps the whole rounds before the fault, `drop` drops the conversation."""


class _Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    on: bool = True


class Html(_Rule, frozen=True, kw_only=True):
    """Answers that are a site's HTML become markdown."""


class Boilerplate(_Rule, frozen=True, kw_only=True):
    """Lines of the site's own that leaked into answers ("Copy code", "Regenerate response") are removed."""

    lines: tuple[str, ...] = (
        "Copy code",
        "Regenerate response",
        "Stop generating",
        "Free Research Preview",
        "Share via ShareGPT",
        "Shared via ShareGPT",
        "Upgrade to Plus",
        "Model: Default (GPT-3.5)",
        "Default (GPT-3.5)",
        "ChatGPT may produce inaccurate information about people, places, or facts",
        "ChatGPT can make mistakes. Consider checking important information.",
        "This content may violate our content policy. If you believe this to be in error, please submit your feedback "
        "— your input will aid our research in this area.",
    )
    """A line is removed where it is exactly one of these; upper and lower case are the same."""


class Edges(_Rule, frozen=True, kw_only=True):
    """Answers before the first question and what follows the last answer are taken off."""


class RoleOrder(_Rule, frozen=True, kw_only=True):
    """Human and model must take turns."""

    action: Action = "drop"


class EmptyTurns(_Rule, frozen=True, kw_only=True):
    """Turns without text."""

    action: Action = "cut"


class ServiceErrors(_Rule, frozen=True, kw_only=True):
    """Error messages of the service in place of an answer."""

    action: Action = "cut"
    phrases: tuple[str, ...] = (
        "Too many requests in 1 hour. Try again later.",
        "Too many requests, please slow down",
        "An error occurred. If this issue persists please contact us",
        "An error occurred. Either the engine you requested does not exist",
        "Something went wrong. If this issue persists please contact us",
        "There was an error generating a response",
        "Error in message stream",
        "Error in body stream",
        "The server had an error while processing your request",
        "The server experienced an error while processing your request",
        "That model is currently overloaded with other requests",
        "We're experiencing exceptionally high demand",
        "We are experiencing exceptionally high demand",
        "Hmm...something seems to have gone wrong",
        "Only one message at a time. Please allow any other responses to complete",
        "You've reached our limit of messages per hour",
        "You've reached the current usage cap",
        "Our systems are a bit busy at the moment",
        "Conversation not found",
        "The message you submitted was too long, please reload the conversation",
        "Your session has expired. Please refresh the page",
        "Unable to load conversation",
        "Request timed out",
        "Internal server error",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Time-out",
        "network error",
        "Load failed",
        "Failed to fetch",
        "$ERROR$",
        "**NETWORK ERROR DUE TO HIGH TRAFFIC",
    )
    """An answer is an error where it begins with one of these and holds little else, or ends with one that stands on
    a line of its own."""


class TooShort(_Rule, frozen=True, kw_only=True):
    rounds: int = 1
    characters: int = 0
    """Of all answers together."""


class PersonalData(_Rule, frozen=True, kw_only=True):
    """E-mail addresses, phone numbers and secret keys."""

    action: Literal["mask", "drop"] = "mask"
    kinds: tuple[Literal["email", "phone", "key"], ...] = ("email", "phone", "key")


class Language(_Rule, frozen=True, kw_only=True):
    """Conversations that are mostly in other languages than wanted are dropped."""

    keep: tuple[str, ...] = ()
    """ISO 639-1 codes (`en`, `de`); empty: every language."""
    characters: int = 200
    """Turns with fewer letters are not judged: detection is wrong on short text."""
    share: float = 0.5
    """Dropped where more than this share of the judged text is in other languages."""


class Unsafe(_Rule, frozen=True, kw_only=True):
    """Conversations that hold a listed phrase are dropped."""

    phrases: tuple[str, ...] = (
        "child porn",
        "child pornography",
        "underage sex",
        "preteen sex",
        "how to make a pipe bomb",
        "how to build a pipe bomb",
        "how to make a bomb",
        "how to build a bomb",
        "synthesize sarin",
        "synthesize nerve agent",
        "cook meth at home",
    )
    files: tuple[str, ...] = ()
    """More phrases, one a line, beside the rules file or by absolute path."""


class Duplicates(_Rule, frozen=True, kw_only=True):
    """Conversations that are the same, or nearly, are merged; the longest is kept."""

    similarity: float = 0.9
    """Of the words in runs of three, from 0 to 1, from where on two are near duplicates; 1: exact ones only."""
    conversations: bool = True
    """Compare whole conversations, and whether one is the beginning of another."""
    openings: bool = True
    """Compare first questions with their answers, where they are more than a few words: one chat shared twice, that
    went on differently."""


class Size(_Rule, frozen=True, kw_only=True):
    megabytes: float = 16.0
    """A larger record is not read."""


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In the order in which they are applied."""

    size: Size = Size()
    html: Html = Html()
    boilerplate: Boilerplate = Boilerplate()
    edges: Edges = Edges()
    role_order: RoleOrder = RoleOrder()
    empty_turns: EmptyTurns = EmptyTurns()
    service_errors: ServiceErrors = ServiceErrors()
    too_short: TooShort = TooShort()
    unsafe: Unsafe = Unsafe()
    language: Language = Language()
    personal_data: PersonalData = PersonalData()
    duplicates: Duplicates = Duplicates()

    def __post_init__(self) -> None:
        if not 0 < self.duplicates.similarity <= 1:
            raise ValueError(f"[duplicates] similarity is {self.duplicates.similarity:g}; it must be over 0, at most 1")
        if not 0 <= self.language.share <= 1:
            raise ValueError(f"[language] share is {self.language.share:g}; it must be from 0 to 1")
        if self.too_short.rounds < 1:
            raise ValueError(f"[too_short] rounds is {self.too_short.rounds}; it must be at least 1")
        if self.size.megabytes <= 0:
            raise ValueError(f"[size] megabytes is {self.size.megabytes:g}; it must be above 0")


def load(path: Path | None) -> Rules:
    """The rules of a TOML file, or the usual ones. Raises ConversationsError with file, section and key."""
    if path is None:
        return Rules()
    try:
        rules = msgspec.toml.decode(path.read_text(encoding="utf-8"), type=Rules)
    except (OSError, UnicodeDecodeError) as failure:
        raise ConversationsError(f"The rules {path} cannot be read: {failure}.") from None
    except msgspec.ValidationError as failure:
        raise ConversationsError(f"The rules {path}: {_explain(str(failure))}.") from None
    except msgspec.DecodeError as failure:
        raise ConversationsError(f"The rules {path} are not TOML: {failure}.") from None
    return _with_listed_phrases(rules, path)


def to_toml(rules: Rules) -> str:
    """The rules as a file that `load` reads, every section and key in it."""
    lines = []
    for section, values in msgspec.to_builtins(rules).items():
        lines.append(f"[{section}]")
        for key, value in values.items():
            # JSON's strings, numbers, booleans and lists of them are TOML's.
            lines.append(f"{key} = {msgspec.json.encode(value).decode()}")
        lines.append("")
    return "\n".join(lines)


def _with_listed_phrases(rules: Rules, path: Path) -> Rules:
    """The phrases of the files that [unsafe] names, written into it: what a run is compared by must hold them."""
    phrases = list(rules.unsafe.phrases)
    for name in rules.unsafe.files:
        listed = path.parent / name
        try:
            phrases += [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as failure:
            raise ConversationsError(f"[unsafe] files names {listed}, which cannot be read: {failure}.") from None
    return msgspec.structs.replace(rules, unsafe=msgspec.structs.replace(rules.unsafe, phrases=tuple(phrases)))


def _explain(complaint: str) -> str:
    what, _, where = complaint.partition(" - at `$")
    where = where.strip("`.")
    if unknown := re.match(r"Object contains unknown field `(.*)`", what):
        rule = next((f.type for f in msgspec.structs.fields(Rules) if f.name == where), Rules)
        known = [field.name for field in msgspec.structs.fields(rule)]
        near = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
        return f"{f'[{where}] has no key' if where else 'there is no rule'} '{unknown[1]}'; {hint}"
    section, _, key = where.partition(".")
    return f"[{section}] {key}: {what[:1].lower()}{what[1:]}" if key else what
