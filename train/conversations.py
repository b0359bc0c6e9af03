"""ShareGPT conversations from a file, checked record by record. Light, so that a launcher can check a file
before a machine is paid for: `python -m train.conversations FILE`.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from train.config import REFUSED
from train.errors import TrainError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}

MANIFEST = ".manifest.json"
"""What is added to a file's name for the manifest beside it."""

Messages = list[dict[str, str]]


def read(path: Path) -> list[Messages]:
    """The conversations of a JSON list or JSON lines file as role and content messages.

    Raises TrainError naming line and record for what is not a conversation.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TrainError(f"There are no conversations at {path}; set data.conversations.") from None
    except UnicodeDecodeError as failure:
        raise TrainError(f"{path} is not UTF-8 text: byte {failure.start}.") from None
    except OSError as failure:
        raise TrainError(f"{path} cannot be read: {(failure.strerror or str(failure)).lower()}.") from None
    check_manifest(path)
    conversations = [_messages(record, f"{path}, {where}") for where, record in _records(text, path)]
    if not conversations:
        raise TrainError(f"{path} holds no conversation.")
    return conversations


def check_manifest(path: Path) -> bytes | None:
    """The manifest beside a file that `vlaunch data` made; None where there is none.

    Raises TrainError where the file is no longer what its manifest says.
    """
    beside = path.with_name(path.name + MANIFEST)
    try:
        text = beside.read_bytes()
        said = json.loads(text)["sha256"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise TrainError(f"{beside} is not a manifest; remove it, or make the data again with vlaunch data.") from None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != said:
        raise TrainError(
            f"{path} is not what its manifest says (sha256 {found[:12]}, written as {said[:12]}): it was changed after "
            f"vlaunch data made it. Make it again, or remove {beside.name} to train on it as it is."
        )
    return text


def record_names(path: Path, numbers: Sequence[int]) -> list[str]:
    """How a person finds the records with these numbers (from 0): where each stands, and its `id` if it has one."""
    wanted = set(numbers)
    found = {}
    for number, (where, record) in enumerate(_records(path.read_text(encoding="utf-8"), path)):
        if number in wanted:
            name = record.get("id") if isinstance(record, dict) else None
            found[number] = f"{where} (id {name})" if name is not None else where
    return [found[number] for number in numbers]


def _records(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """Each record with where it stands."""
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except json.JSONDecodeError as failure:
            raise TrainError(f"{path} is not JSON: line {failure.lineno}: {failure.msg}.") from None
        yield from ((f"record {number}", record) for number, record in enumerate(records, 1))
        return
    number = 0
    for line_number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        number += 1
        where = f"line {line_number}, record {number}"
        try:
            yield where, json.loads(line)
        except json.JSONDecodeError as failure:
            raise TrainError(f"{path}, {where} is not JSON: {failure.msg}.") from None


def _messages(record: Any, where: str) -> Messages:
    turns = record.get("conversations") or record.get("messages") if isinstance(record, dict) else None
    if not isinstance(turns, list) or not turns:
        raise TrainError(f"{where}: no list of turns under 'conversations'.")
    messages = [_message(turn, f"{where}, turn {number}") for number, turn in enumerate(turns, 1)]
    spoken = messages[1:] if messages[0]["role"] == "system" else messages
    expected = ("user", "assistant")
    for number, message in enumerate(spoken):
        if message["role"] != expected[number % 2]:
            turn = number + 1 + len(messages) - len(spoken)
            raise TrainError(
                f"{where}, turn {turn} is the {message['role']}'s where the {expected[number % 2]}'s belongs; "
                "turns alternate and begin with the user's."
            )
    if not any(message["role"] == "assistant" for message in spoken):
        raise TrainError(f"{where}: no turn of the assistant's to train on.")
    return messages


def _message(turn: Any, where: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise TrainError(f"{where} is not an object with 'from' and 'value'.")
    role = turn.get("from", turn.get("role"))
    content = turn.get("value", turn.get("content"))
    if role is None:
        raise TrainError(f"{where} says not whose it is: 'from' is missing.")
    if role not in ROLES:
        raise TrainError(f"{where} is from '{role}'; known are {', '.join(sorted(ROLES))}.")
    if not isinstance(content, str):
        raise TrainError(f"{where} has no text under 'value'.")
    return {"role": ROLES[role], "content": content}


def main(arguments: list[str]) -> int:
    """Check the file named in `arguments`; print what it holds or the sentence that refuses it."""
    try:
        conversations = read(Path(arguments[0]))
    except TrainError as failure:
        print(failure)
        return REFUSED
    turns = sum(len(messages) for messages in conversations)
    print(f"{len(conversations)} conversations, {turns} turns")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
