"""Long conversations into pieces that fit the model's context, at the borders of rounds. Every answer of the input is
in the pieces once and whole; one that does not fit alone is cut at a paragraph, and its pieces say so.
"""

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from conversations import schema
from conversations.errors import ConversationsError, Unreadable
from conversations.output import Writer, describe, writing
from conversations.pool import Lost, Pool, workers_for
from conversations.records import Raw, Reading, batches
from conversations.schema import Conversation, Turn
from conversations.sources import Source
from conversations.tokens import Counter

LARGEST = 64_000_000
CONTINUE = "Continue."
"""What the human says where a piece goes on with an answer. The question again would teach a model to begin its
answers in the middle."""

_BORDERS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"[.!?。！？]\s+"), re.compile(r"\s"))
"""Where an answer is cut, the best first: after a paragraph, a line, a sentence, a word. At last after a token."""


class Counts(msgspec.Struct, kw_only=True):
    conversations_in: int = 0
    pieces: int = 0
    whole: int = 0
    """Conversations that fit as they are."""
    answers_cut: int = 0
    questions_shortened: int = 0
    tokens: int = 0
    """Of all pieces, as the trainer will count them."""
    unreadable: dict[str, int] = msgspec.field(default_factory=dict)


class Split(msgspec.Struct, frozen=True, kw_only=True):
    out: Path
    counts: Counts
    named: list[str]
    """The first records that could not be read, and why."""


class _Pieces(msgspec.Struct, frozen=True):
    pieces: list[bytes]
    tokens: int
    cut: int
    shortened: int


def split(
    given: list[Source],
    out: Path,
    *,
    tokenizer: str,
    template: str | None,
    template_name: str,
    max_tokens: int,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda bytes_read, records: None,
) -> Split:
    """Split the sources' conversations into `out`. Raises ConversationsError."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each core has a process; before the first use, for they are forked
    counter = Counter(tokenizer, template)
    smallest = counter.count([Turn("human", CONTINUE), Turn("gpt", "x")])
    if max_tokens < 2 * smallest:
        raise ConversationsError(
            f"--max-tokens {max_tokens} leaves no room: template and prompt alone take {smallest}."
        )
    counts = Counts()
    named: list[str] = []
    reading = Reading(given, LARGEST)
    asked: list[list[Raw]] = []
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        work = functools.partial(_worker, counter, max_tokens)
        workers = processes or workers_for(sum(source.size for source in given))
        pool: Pool[Raw, _Pieces | tuple[str, str]] = Pool(work, workers)
        with Writer(out) as writer:
            for results in pool.map(batches(iter(reading), asked)):
                for raw, result in zip(asked.pop(0), results, strict=True):
                    counts.conversations_in += 1
                    if isinstance(result, _Pieces):
                        _count(counts, result)
                        for piece in result.pieces:
                            writer.write(piece)
                        continue
                    reason, detail = ("crash", result.why) if isinstance(result, Lost) else result
                    counts.unreadable[reason] = counts.unreadable.get(reason, 0) + 1
                    if len(named) < 20:
                        named.append(f"{raw.where} ({raw.name}): {reason}: {detail}")
                progress(reading.bytes, counts.conversations_in)
        settings = {"tokenizer": tokenizer, "template": template_name, "max_tokens": max_tokens}
        describe(out, made_by="vlaunch data split", inputs=reading.inputs, settings=settings,
                 counts=msgspec.to_builtins(counts), records=counts.pieces, libraries=("transformers",))  # fmt: skip
    return Split(out=out, counts=counts, named=named)


def _count(counts: Counts, result: _Pieces) -> None:
    counts.pieces += len(result.pieces)
    counts.whole += len(result.pieces) == 1 and not result.cut
    counts.answers_cut += result.cut
    counts.questions_shortened += result.shortened
    counts.tokens += result.tokens


def _worker(counter: Counter, max_tokens: int) -> Callable[[Raw], _Pieces | tuple[str, str]]:
    def apply(raw: Raw) -> _Pieces | tuple[str, str]:
        try:
            if raw.problem:
                raise Unreadable(*raw.problem)
            found = pieces(schema.parse(raw.data, raw.name), counter, max_tokens)
        except Unreadable as fault:
            return fault.reason, fault.detail
        cut = {piece.cut["turn"] for piece in found if piece.cut}
        shortened = {piece.cut["turn"] for piece in found if piece.cut and "question_shortened" in piece.cut}
        tokens = sum(counter.count(piece.conversations) for piece in found)
        return _Pieces([msgspec.json.encode(piece) for piece in found], tokens, len(cut), len(shortened))

    return apply


def pieces(conversation: Conversation, counter: Counter, max_tokens: int) -> list[Conversation]:
    """The conversation in pieces of at most `max_tokens`. Raises Unreadable where its turns are out of order."""
    turns = conversation.conversations
    system = turns[:1] if turns and turns[0].speaker == "system" else []
    spoken = turns[len(system) :]
    if not spoken or len(spoken) % 2 or any(t.speaker != ("human", "gpt")[n % 2] for n, t in enumerate(spoken)):
        raise Unreadable("order", "its turns do not alternate from a question to an answer; clean it first")
    # a conversation that is long for its tokens is not counted whole before its rounds are
    is_short = len(spoken) == 2 or sum(len(turn.value) for turn in turns) <= 2 * max_tokens
    if is_short and counter.count(turns) <= max_tokens:
        return [conversation]
    found = list(_Splitter(conversation, system, spoken, counter, max_tokens).pieces())
    return [conversation] if found[0].conversations == turns else found


class _Splitter:
    """One conversation that is too long."""

    def __init__(
        self, conversation: Conversation, system: list[Turn], spoken: list[Turn], counter: Counter, max_tokens: int
    ) -> None:
        self._conversation = conversation
        self._counter = counter
        self._max = max_tokens
        self._spoken = spoken
        least = [Turn("human", CONTINUE), Turn("gpt", "x")]
        if system and counter.count([*system, *least]) > max_tokens // 2:
            system = []  # one that leaves no room for an answer is left out of the pieces
        self._system = system
        self._alone = [self._of(at, at + 2) for at in range(0, len(spoken), 2)]
        one, two = counter.count([*system, *least]), counter.count([*system, *least, *least])
        self._before = 2 * one - two
        """About how many tokens stand before the first round."""

    def pieces(self) -> Iterator[Conversation]:
        at = 0
        while at < len(self._spoken):
            if self._alone[at // 2] > self._max:
                yield from self._cut(at)
                at += 2
                continue
            end = self._end(at)
            yield self._piece(str(at), [*self._system, *self._spoken[at:end]])
            at = end

    def _of(self, start: int, end: int) -> int:
        return self._counter.count([*self._system, *self._spoken[start:end]])

    def _end(self, start: int) -> int:
        """Where the longest piece ends that begins at `start`: by the rounds' counts, then put right by counting."""
        end = start + 2
        expected = self._alone[start // 2]
        while end < len(self._spoken) and self._alone[end // 2] <= self._max:
            more = self._alone[end // 2] - self._before
            # where rounds meet, tokens may join: what is over by little is counted
            if expected + more > self._max + 8 + end - start:
                break
            expected += more
            end += 2
        while end > start + 2 and self._of(start, end) > self._max:
            end -= 2
        return end

    def _cut(self, at: int) -> Iterator[Conversation]:
        """The round at `at`, which does not fit alone, in parts of its answer."""
        question, answer = self._spoken[at].value, self._spoken[at + 1].value
        asked = self._shortened(question)
        parts: list[tuple[str, str]] = []
        while answer or not parts:
            said = asked if not parts else CONTINUE
            end = self._fitting(said, answer)
            parts.append((said, answer[:end]))
            answer = answer[end:]
        for number, (said, part) in enumerate(parts, 1):
            mark: dict[str, Any] = {"turn": at + 1, "part": number, "of": len(parts)}
            if asked != question and number == 1:
                mark["question_shortened"] = len(question) - len(asked)
            turns = [*self._system, Turn("human", said), Turn("gpt", part)]
            yield self._piece(f"{at}.{number}", turns, mark)

    def _shortened(self, question: str) -> str:
        """The question, or as much of its beginning as leaves half of the room to the answer."""
        room = self._max // 2
        if self._tokens(question, "") <= room:
            return question
        return question[: self._longest(question, lambda text: self._tokens(text, "") <= room, [])] or question[:1]

    def _fitting(self, said: str, answer: str) -> int:
        """How much of the answer goes into a piece."""
        if self._tokens(said, answer) <= self._max:
            return len(answer)
        return self._longest(answer, lambda text: self._tokens(said, text) <= self._max, _BORDERS)

    def _longest(self, text: str, fits: Callable[[str], bool], wanted: Sequence[re.Pattern[str]]) -> int:
        """The longest beginning that fits and ends at the border of a token, if one is not far at one of `wanted`."""
        # No text of the length of a piece is looked at that could not fit, however long the whole is.
        borders = self._counter.borders(text[: 16 * self._max])
        low, high = 0, len(borders) - 1
        middle, reach = self._max - self._before, 4  # about where it will be, and outwards from there
        while low < high:
            middle = min(max(middle, low + 1), high)
            if fits(text[: borders[middle]]):
                low = middle
                middle += reach
            else:
                high = middle - 1
                middle -= reach
            reach *= 4
            if reach > high - low:
                middle = (low + high + 1) // 2
        end = borders[max(low, 1)]
        allowed = set(borders)
        for border in wanted:
            ends = [found.end() for found in border.finditer(text, 0, end) if end // 2 <= found.end() <= end]
            for candidate in reversed(ends):
                if candidate in allowed and fits(text[:candidate]):
                    return candidate
        return end

    def _tokens(self, question: str, answer: str) -> int:
        return self._counter.count([*self._system, Turn("human", question), Turn("gpt", answer)])

    def _piece(self, name: str, turns: list[Turn], cut: dict[str, Any] | None = None) -> Conversation:
        name = f"{self._conversation.id}_{name}"
        return Conversation(id=name, conversations=turns, source=self._conversation.id, cut=cut)
