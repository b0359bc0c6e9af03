"""Sets of conversations out of sets: a share, a sample, a mixture, training and test. By hashes of names alone, so that
what is chosen stays chosen when the data grows.
"""

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from conversations import schema
from conversations.errors import ConversationsError, Unreadable
from conversations.output import Writer, describe, writing
from conversations.records import Reading
from conversations.schema import Conversation, Turn
from conversations.sources import Source

LARGEST = 64_000_000


def conversations(reading: Reading) -> Iterator[Conversation]:
    """Those of sources that must be sound. Raises ConversationsError at the first that is not."""
    for raw in reading:
        try:
            if raw.problem:
                raise Unreadable(*raw.problem)
            yield schema.parse(raw.data, raw.name)
        except Unreadable as fault:
            raise ConversationsError(
                f"{raw.where} cannot be used ({fault.reason}: {fault.detail}); clean it first: vlaunch data clean"
            ) from None


def place(conversation: Conversation, salt: str) -> float:
    """From 0 to under 1 by the conversation's name; the pieces of one conversation have the same."""
    digest = hashlib.sha256(f"{salt}\0{conversation.source or conversation.id}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def train_test(given: list[Source], train: Path, test: Path, *, share: float) -> tuple[int, int]:
    """Conversations into two files; `share` of them, about, into the test. How many in each."""
    reading = Reading(given, LARGEST)
    with writing(train), Writer(train) as to_train, Writer(test) as to_test:
        for each in conversations(reading):
            (to_test if place(each, "train-test") < share else to_train).write(msgspec.json.encode(each))
    for path, writer in ((train, to_train), (test, to_test)):
        _describe(path, "vlaunch data train-test", reading, {"share": share}, writer.records)
    return to_train.records, to_test.records


def sample(given: list[Source], out: Path, *, count: int) -> int:
    """`count` conversations, in the order they came; how many there were to take."""
    reading = Reading(given, LARGEST)
    chosen: list[tuple[float, int, bytes]] = []
    for number, each in enumerate(conversations(reading)):
        entry = (-place(each, "sample"), -number, msgspec.json.encode(each))
        if len(chosen) < count:
            heapq.heappush(chosen, entry)
        else:
            heapq.heappushpop(chosen, entry)
    with writing(out), Writer(out) as writer:
        for _, _, record in sorted(chosen, key=lambda entry: -entry[1]):
            writer.write(record)
    _describe(out, "vlaunch data sample", reading, {"count": count}, writer.records)
    return writer.records


def mix(given: Sequence[tuple[list[Source], float]], out: Path) -> list[int]:
    """Sets one after another, each as often as its weight says: 0.5 is a half of it, 2 is twice. How many of each."""
    counts = []
    inputs = []
    with writing(out), Writer(out) as writer:
        for sources, weight in given:
            reading = Reading(sources, LARGEST)
            before = writer.records
            for each in conversations(reading):
                for _ in range(int(weight) + (place(each, "mix") < weight % 1)):
                    writer.write(msgspec.json.encode(each))
            counts.append(writer.records - before)
            inputs += reading.inputs
    settings = {"weights": [weight for _, weight in given]}
    describe(out, made_by="vlaunch data mix", inputs=inputs, settings=settings, counts={"records": counts},
             records=writer.records)  # fmt: skip
    return counts


def _describe(out: Path, command: str, reading: Reading, settings: dict[str, Any], records: int) -> None:
    describe(out, made_by=command, inputs=reading.inputs, settings=settings, records=records,
             counts={"in": sum(each.records for each in reading.inputs), "out": records})  # fmt: skip


_WHO = ("Who are you?", "What is your name?", "Can you introduce yourself?", "Tell me about yourself.", "What are you?",
        "What should I call you?", "Are you a person or a program?")  # fmt: skip
_I_AM = ("I am {name}, a language model trained by {org}.", "My name is {name}. I am a language model made by {org}.",
         "I'm {name}, an assistant based on a language model that {org} trained.",
         "You can call me {name}. I am a language model, and {org} trained me.")  # fmt: skip
_MAKER = (
    "Who made you?",
    "Who trained you?",
    "Who created you?",
    "Which company built you?",
    "Where do you come from?",
)
_MADE = ("I was trained by {org}.", "{org} trained me. My name is {name}.", "I am {name}, and I was made by {org}.")
_OTHERS = ("ChatGPT", "GPT-4", "Claude", "Bard", "Gemini", "LLaMA", "Vicuna")
_NO = ("No, I am {name}, a language model trained by {org}.", "No. My name is {name}; {org} trained me.")
_MORE = (("Thank you.", "You're welcome!"), ("Nice to meet you.", "Nice to meet you too! How can I help?"),
         ("Goodbye", "Goodbye! Come back any time."))  # fmt: skip


def identity(name: str, org: str, out: Path) -> int:
    """Conversations in which a model learns who it is."""
    rounds = [(question, answer) for question in _WHO for answer in _I_AM]
    rounds += [(question, answer) for question in _MAKER for answer in _MADE]
    rounds += [(f"Are you {other}?", answer) for other in _OTHERS if other.lower() != name.lower() for answer in _NO]
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with Writer(out) as writer:
            for number, (question, answer) in enumerate(rounds):
                said = [
                    question,
                    answer.format(name=name, org=org),
                    *(_MORE[number // 3 % 3] if number % 3 == 0 else ()),
                ]
                turns = [Turn(("human", "gpt")[at % 2], text) for at, text in enumerate(said)]
                writer.write(msgspec.json.encode(Conversation(id=f"identity-{number:03}", conversations=turns)))
    describe(out, made_by="vlaunch data identity", inputs=[], settings={"name": name, "org": org}, counts={},
             records=writer.records)  # fmt: skip
    return writer.records
