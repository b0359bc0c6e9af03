import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train import templates
from train.config import ModelConfig
from train.conversations import Messages
from train.data import IGNORED, Rows, Tokens, fingerprint, pack, tokenize
from train.errors import TrainError
from train.model import load_tokenizer

CHAT: Messages = [
    {"role": "user", "content": "Hi, who are you?"},
    {"role": "assistant", "content": "I am Sprout."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "It is 4."},
]
SYSTEM = [{"role": "system", "content": "Be brief."}, *CHAT]


def tokenizer_with(template: str) -> Any:
    config = ModelConfig(base="tiny", parameters=1, native_context_tokens=512, context_tokens=512, template="chatml")
    tokenizer = load_tokenizer(config, None)
    tokenizer.chat_template = templates.NAMED[template]
    return tokenizer


def trained_texts(template: str, messages: Messages) -> list[str]:
    """Each unbroken stretch of trained tokens, as text."""
    tokenizer = tokenizer_with(template)
    tokens, cut = tokenize([messages], tokenizer, 10_000)
    assert cut == 0
    stretches = itertools.groupby(zip(tokens.ids.tolist(), tokens.trained.tolist(), strict=True), lambda pair: pair[1])
    return [tokenizer.decode([token for token, _ in stretch]) for trained, stretch in stretches if trained]


# Written out by hand: every answer with the token that ends it, and nothing else.
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("vicuna", [" I am Sprout.<|im_end|>", " It is 4.<|im_end|>"]),
        ("chatml", ["I am Sprout.<|im_end|>", "It is 4.<|im_end|>"]),
        ("llama2", [" I am Sprout. <|im_end|>", " It is 4. <|im_end|>"]),
    ],
)
@pytest.mark.parametrize("messages", [CHAT, SYSTEM], ids=["plain", "with a system message"])
def test_exactly_the_assistants_text_and_its_end_token_are_trained_on(
    template: str, expected: list[str], messages: Messages
) -> None:
    assert trained_texts(template, messages) == expected


def test_the_vicuna_template_renders_as_published() -> None:
    tokenizer = tokenizer_with("vicuna")
    tokenizer.eos_token = "</s>"
    text = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert text == (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: Hi, who are you? ASSISTANT: I am Sprout.</s>"
        " USER: 2 + 2? ASSISTANT: It is 4.</s>"
    )


@pytest.mark.parametrize("template", templates.NAMED)
def test_a_prompt_is_the_beginning_of_what_was_trained_on(template: str) -> None:
    tokenizer = tokenizer_with(template)
    whole = tokenizer.apply_chat_template(CHAT, tokenize=False)
    prompt = tokenizer.apply_chat_template(CHAT[:3], tokenize=False, add_generation_prompt=True)
    assert whole.startswith(prompt)
    tokenizer.chat_template = templates.without_marks(tokenizer.chat_template)
    assert "generation %}" not in tokenizer.chat_template
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == whole


def test_a_template_that_does_not_mark_the_assistants_text_is_refused() -> None:
    with pytest.raises(TrainError, match=r"set model\.template to one of vicuna, chatml, llama2"):
        templates.choose("tokenizer", "{% for m in messages %}{{ m.content }}{% endfor %}")
    assert templates.choose("tokenizer", templates.NAMED["chatml"]) == templates.NAMED["chatml"]


def test_what_lies_beyond_the_context_is_counted() -> None:
    tokenizer = tokenizer_with("chatml")
    whole, _ = tokenize([CHAT], tokenizer, 10_000)
    part, cut = tokenize([CHAT], tokenizer, 60)
    assert len(part.ids) == 60
    assert cut == whole.trained.sum() - part.trained.sum() > 0


def test_real_conversations_lose_no_answer(shared: Path) -> None:
    from train.conversations import read

    tokenizer = tokenizer_with("vicuna")
    conversations = read(shared / "conversations" / "dummy_conversation.json")
    tokens, _ = tokenize(conversations, tokenizer, 100_000)
    answers = [m["content"] for messages in conversations for m in messages if m["role"] == "assistant"]
    said = tokenizer.decode(tokens.ids[tokens.trained]).split("<|im_end|>")
    assert [text.removeprefix(" ") for text in said[:-1]] == answers


lengths = st.lists(st.integers(1, 64), min_size=1, max_size=120)


@given(lengths)
def test_packing_keeps_every_conversation_once_and_no_row_is_too_long(sizes: list[int]) -> None:
    rows = pack(sizes, 64)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in row) <= 64 for row in rows)
    # Best fit decreasing never leaves two rows that would fit into one.
    fills = sorted(sum(sizes[index] for index in row) for row in rows)
    assert len(fills) < 2 or fills[0] + fills[1] > 64


def some_rows(sizes: list[int], seed: int = 0) -> Rows:
    total = sum(sizes)
    tokens = Tokens(
        np.arange(1, total + 1, dtype=np.int32), np.arange(total) % 3 > 0, np.cumsum([0, *sizes]).astype(np.int64)
    )
    return Rows(tokens, 64, seed=seed, pad_id=0)


@given(lengths)
def test_positions_restart_with_each_conversation_and_labels_are_the_trained_tokens(sizes: list[int]) -> None:
    rows = some_rows(sizes)
    for number, row in enumerate(rows.rows):
        batch = rows.batch([number])
        at = 0
        for index in row:
            start, end = rows.tokens.starts[index], rows.tokens.starts[index + 1]
            here = slice(at, at + end - start)
            assert batch.ids[0, here].tolist() == rows.tokens.ids[start:end].tolist()
            assert batch.positions[0, here].tolist() == list(range(end - start))
            wanted = np.where(rows.tokens.trained[start:end], rows.tokens.ids[start:end], IGNORED)
            wanted[0] = IGNORED
            assert batch.labels[0, here].tolist() == wanted.tolist()
            at += int(end - start)
        assert (batch.labels[0, at:] == IGNORED).all()


@given(lengths, st.integers(0, 1000), st.integers(1, 9), st.integers(1, 4), st.integers(1, 5))
def test_the_same_groups_of_rows_are_shared_out_evenly_for_any_number_of_processes(
    sizes: list[int], step: int, global_batch: int, micro_batch: int, world_size: int
) -> None:
    rows = some_rows(sizes, seed=3)

    def groups(rank: int, of: int) -> list[list[int]]:
        return rows.micro_batches(step, global_batch=global_batch, micro_batch=micro_batch, rank=rank, world_size=of)

    alone = groups(0, 1)
    shared = [groups(rank, world_size) for rank in range(world_size)]
    assert len({len(each) for each in shared}) == 1  # or some would wait for ever
    together = [group for turn in zip(*shared, strict=True) for group in turn]
    assert together[: len(alone)] == alone
    assert not any(together[len(alone) :])
    assert sum(len(group) for group in alone) == global_batch


def test_a_group_of_no_rows_is_a_row_from_which_nothing_is_learned() -> None:
    batch = some_rows([10]).batch([])
    assert batch.ids.shape == (1, 64)
    assert (batch.labels == IGNORED).all()
    assert batch.starts.tolist() == [0, 64]


def test_an_epoch_shows_every_row_once_in_an_order_of_its_own() -> None:
    rows = some_rows([40] * 12)
    epochs = [
        [rows.micro_batches(step, global_batch=1, micro_batch=1, rank=0, world_size=1)[0][0] for step in steps]
        for steps in (range(12), range(12, 24))
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_fewer_rows_than_a_batch_is_a_sentence() -> None:
    with pytest.raises(TrainError, match=r"fill 1 rows of 64 tokens; 1 epochs of them are less than one batch of 8"):
        some_rows([10]).steps(epochs=1, global_batch=8, max_steps=0)


def test_tokens_survive_their_file_and_joining() -> None:
    whole = some_rows([5, 7, 3]).tokens
    again = Tokens.from_bytes(whole.to_bytes())
    assert again.ids.tolist() == whole.ids.tolist()
    joined = Tokens.joined([whole, Tokens(whole.ids[:0], whole.trained[:0], whole.starts[:1]), again])
    assert joined.starts.tolist() == [0, 5, 12, 15, 20, 27, 30]


def test_another_file_or_template_has_another_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("a")
    first = fingerprint(path, template="x")
    assert first == fingerprint(path, template="x") != fingerprint(path, template="y")
    path.write_text("b")
    assert fingerprint(path, template="x") != first
