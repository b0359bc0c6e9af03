"""Conversations to packed rows of tokens with the assistant's tokens marked, and which rows a process sees at
a step. The order depends on seed and step alone, so it needs no saving and holds for any number of processes.
"""

import bisect
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from train.conversations import Messages
from train.errors import TrainError

IGNORED = -100
"""The label of a token that is not trained on."""

Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tokens:
    """Conversations as tokens, one after another."""

    ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    """Which of `ids` the assistant said, its end tokens included."""
    starts: npt.NDArray[np.int64]
    """Where each conversation begins, and at last where the last one ends."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, ids=self.ids, trained=self.trained, starts=self.starts)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tokens":
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return cls(arrays["ids"], arrays["trained"], arrays["starts"])

    @classmethod
    def joined(cls, parts: Sequence["Tokens"]) -> "Tokens":
        ends = np.cumsum([0, *(part.starts[-1] for part in parts)])
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends, strict=False)]
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.trained for part in parts]),
            np.concatenate([*starts, ends[-1:]]).astype(np.int64),
        )


def tokenize(conversations: Iterable[Messages], tokenizer: Any, context_tokens: int) -> tuple[Tokens, int]:
    """The conversations as tokens by the tokenizer's chat template, each cut at `context_tokens`, and how many
    of the assistant's tokens were cut off.
    """
    ids: list[npt.NDArray[np.int32]] = []
    trained: list[npt.NDArray[np.bool_]] = []
    cut = 0
    for messages in conversations:
        encoded = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        mask = np.asarray(encoded["assistant_masks"], bool)
        cut += int(mask[context_tokens:].sum())
        ids.append(np.asarray(encoded["input_ids"][:context_tokens], np.int32))
        trained.append(mask[:context_tokens])
    starts = np.cumsum([0, *(len(each) for each in ids)]).astype(np.int64)
    if not ids:
        return Tokens(np.zeros(0, np.int32), np.zeros(0, bool), starts), 0
    return Tokens(np.concatenate(ids), np.concatenate(trained), starts), cut


def pack(lengths: Sequence[int], context_tokens: int) -> list[list[int]]:
    """Conversations grouped into rows of at most `context_tokens`, best fit with the longest first.

    Returns, per row, the indices of its conversations. Deterministic; near-linear in the number of
    conversations, because rows are found by their free space.
    """
    rows: list[list[int]] = []
    by_space: dict[int, list[int]] = {}
    spaces: list[int] = []  # sorted free spaces that some row has
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        at = bisect.bisect_left(spaces, length)
        if at == len(spaces):
            row = len(rows)
            rows.append([])
            space = context_tokens
        else:
            space = spaces[at]
            row = by_space[space].pop()
            if not by_space[space]:
                del by_space[space]
                spaces.pop(at)
        rows[row].append(index)
        left = space - length
        if left not in by_space:
            by_space[left] = []
            bisect.insort(spaces, left)
        by_space[left].append(row)
    return rows


@dataclass(frozen=True)
class Batch:
    """Rows for one forward pass; each array is rows x context tokens."""

    ids: Array
    labels: Array
    """IGNORED where a token is not trained on."""
    positions: Array
    """Restart at 0 with each conversation, which is what keeps packed conversations apart."""

    @property
    def starts(self) -> npt.NDArray[np.int32]:
        """Where each conversation of all rows, one after another, begins, and at last where the last one ends."""
        return np.append(np.flatnonzero(self.positions == 0), self.positions.size).astype(np.int32)

    @property
    def learned(self) -> tuple[Array, Array]:
        """Which tokens of all rows, one after another, come before one that is learned, and what each has to
        predict."""
        following = np.roll(self.labels, -1, axis=1)
        following[:, -1] = IGNORED  # a row's last token predicts nothing
        at = np.flatnonzero(following != IGNORED)
        return at, following.flat[at]


class Rows:
    """The packed training rows."""

    def __init__(self, tokens: Tokens, context_tokens: int, *, seed: int, pad_id: int) -> None:
        self.tokens = tokens
        self.context_tokens = context_tokens
        self.seed = seed
        self.pad_id = pad_id
        self.rows = pack(np.diff(tokens.starts).tolist(), context_tokens)

    def steps(self, *, epochs: float, global_batch: int, max_steps: int) -> int:
        """How many optimizer steps; a last, partial batch is left out. Raises TrainError where there is none."""
        steps = int(len(self.rows) * epochs) // global_batch
        if steps == 0:
            raise TrainError(
                f"The conversations fill {len(self.rows)} rows of {self.context_tokens} tokens; {epochs:g} "
                f"epochs of them are less than one batch of {global_batch}. Lower train.global_batch."
            )
        return min(steps, max_steps) if max_steps else steps

    def micro_batches(
        self, step: int, *, global_batch: int, micro_batch: int, rank: int, world_size: int
    ) -> list[list[int]]:
        """The rows process `rank` sees at `step` (from 0), in the groups that it computes at once.

        The groups of a step are the same for any number of processes, which share them out; so what is summed
        within a group, in bf16, does not depend on their number. Every process gets as many groups, because they
        wait for each other at each; where that does not come out even the last ones are empty.
        """
        first, end = step * global_batch, (step + 1) * global_batch
        groups = [
            [self._row(position) for position in range(start, min(start + micro_batch, end))]
            for start in range(first, end, micro_batch)
        ]
        groups += [[] for _ in range(-len(groups) % world_size)]
        return groups[rank::world_size]

    def records(self, row: int) -> list[int]:
        """Which of the conversations, from 0, a row holds."""
        return self.rows[row]

    def _row(self, position: int) -> int:
        epoch, place = divmod(position, len(self.rows))
        return int(self._order(epoch)[place])

    def _order(self, epoch: int) -> Array:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
        return self._permutation

    def batch(self, rows: Sequence[int]) -> Batch:
        """The rows as arrays; of no row, one of padding alone."""
        wanted = [self.rows[row] for row in rows] or [[]]
        ids, labels, positions = zip(*(self._arrays(each) for each in wanted), strict=True)
        return Batch(np.stack(ids), np.stack(labels), np.stack(positions))

    def _arrays(self, conversations: Sequence[int]) -> tuple[Array, Array, Array]:
        ids = np.full(self.context_tokens, self.pad_id, np.int64)
        labels = np.full(self.context_tokens, IGNORED, np.int64)
        positions = np.zeros(self.context_tokens, np.int64)
        at = 0
        for index in conversations:
            part = slice(self.tokens.starts[index], self.tokens.starts[index + 1])
            length = part.stop - part.start
            here = slice(at, at + length)
            ids[here] = self.tokens.ids[part]
            labels[here] = np.where(self.tokens.trained[part], self.tokens.ids[part], IGNORED)
            labels[at] = IGNORED  # nothing comes before a conversation's first token
            positions[here] = np.arange(length)
            at += length
        # Padding is a conversation of its own that nothing is learned from.
        positions[at:] = np.arange(self.context_tokens - at)
        return ids, labels, positions


def fingerprint(path: Path, **settings: Any) -> str:
    """The sha256 of a data file, or with settings that shape its tokens a hash of both."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if settings:
        digest.update(repr(sorted(settings.items())).encode())
    return digest.hexdigest()
