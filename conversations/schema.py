"""What a record's JSON says: ShareGPT, OpenAI messages and their relatives, as one form."""

import json
from typing import Any, Literal

import msgspec

from conversations.errors import Unreadable

Speaker = Literal["human", "gpt", "system"]

SPEAKERS: dict[str, Speaker] = {
    "human": "human",
    "user": "human",
    "prompter": "human",
    "gpt": "gpt",
    "assistant": "gpt",
    "chatgpt": "gpt",
    "bing": "gpt",
    "bard": "gpt",
    "model": "gpt",
    "system": "system",
    "developer": "system",
}
TURNS = ("conversations", "messages", "conversation", "items", "turns")
"""Keys under which the known forms keep their turns."""
IDS = ("id", "conversation_id", "conv_id", "prompt_id", "uuid")


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    speaker: Speaker = msgspec.field(name="from")
    value: str


class Conversation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The form everything is written in: ShareGPT's."""

    id: str
    conversations: list[Turn]
    source: str | None = None
    """Of a piece: the id of the conversation it is of."""
    cut: dict[str, Any] | None = None
    """Of a piece of a longer one: what was cut and where."""


_own_form = msgspec.json.Decoder(Conversation)


def parse(data: bytes, unnamed: str) -> Conversation:
    """The conversation of one record; `unnamed` is its id where it has none. Raises Unreadable."""
    try:
        own = _own_form.decode(data)  # most records have this form, and are read in a third of the time
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        own = None
    if own and own.id:
        return own
    try:
        text = data.decode()
    except UnicodeDecodeError as failure:
        raise Unreadable("encoding", f"byte {failure.start} of it is not UTF-8") from None
    try:
        record = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        record = _slowly(text)
    return conversation(record, unnamed)


def conversation(record: Any, unnamed: str) -> Conversation:
    """A decoded record as a conversation. Raises Unreadable."""
    if not isinstance(record, dict):
        raise Unreadable("schema", f"it is {_kind(record)}, not an object with 'conversations'")
    key = next((key for key in TURNS if record.get(key) is not None), None)
    if key is None:
        known = ", ".join(str(each) for each in list(record)[:6]) or "nothing"
        raise Unreadable("schema", f"it has no 'conversations' or 'messages', only {known}")
    listed = record[key]
    if isinstance(listed, dict):  # a column of a dataset: a list for each key
        listed = _rows(listed)
    if not isinstance(listed, list):
        raise Unreadable("schema", f"'{key}' is {_kind(listed)}, not a list of turns")
    turns = [_turn(each, number) for number, each in enumerate(listed, 1)]
    name = next((record[key] for key in IDS if record.get(key) not in (None, "")), unnamed)
    if isinstance(record.get("system"), str) and record["system"] and not any(t.speaker == "system" for t in turns):
        turns.insert(0, Turn("system", record["system"]))
    source, cut = record.get("source"), record.get("cut")
    return Conversation(
        id=_sound(str(name), "its id"),
        conversations=turns,
        source=source if isinstance(source, str) else None,
        cut=cut if isinstance(cut, dict) else None,
    )


def _slowly(text: str) -> Any:
    """By the standard library, which also takes NaN and knows where the fault is."""
    try:
        return json.loads(text)
    except RecursionError:
        raise Unreadable("not_json", "its brackets are nested too deep") from None
    except json.JSONDecodeError as failure:
        at_end = failure.pos >= len(text.rstrip()) or failure.msg.startswith("Unterminated string")
        what = failure.msg[:1].lower() + failure.msg[1:].removesuffix(" at")
        raise Unreadable("truncated" if at_end else "not_json", f"{what} at character {failure.pos}") from None


def _turn(turn: Any, number: int) -> Turn:
    if not isinstance(turn, dict):
        raise Unreadable("schema", f"turn {number} is {_kind(turn)}, not an object")
    said_by = turn.get("from", turn.get("role", turn.get("speaker")))
    if not isinstance(said_by, str):
        raise Unreadable("schema", f"turn {number} does not say whose it is")
    speaker = SPEAKERS.get(said_by.strip().lower())
    if speaker is None:
        raise Unreadable("schema", f"turn {number} is from '{said_by[:40]}'")
    value = next((turn[key] for key in ("value", "content", "text") if turn.get(key) is not None), "")
    if isinstance(value, list):
        value = _parts(value, number)
    if not isinstance(value, str):
        raise Unreadable("schema", f"turn {number} has {_kind(value)} for its text")
    return Turn(speaker, _sound(value, f"turn {number}"))


def _parts(parts: list[Any], number: int) -> str:
    """OpenAI's content in parts, where all of them are text."""
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            kind = part.get("type", "something") if isinstance(part, dict) else _kind(part)
            raise Unreadable("schema", f"turn {number} has a part that is not text: {kind}")
        texts.append(text)
    return "".join(texts)


def _rows(columns: dict[str, Any]) -> list[dict[str, Any]]:
    lengths = {len(values) if isinstance(values, list) else -1 for values in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise Unreadable("schema", "its turns are an object, not a list")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _sound(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unreadable("encoding", f"{what} holds half of a character (a lone surrogate)") from None
    return text


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
