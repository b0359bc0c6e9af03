from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from conversations.words import Words, allows
from tests.test_split import WORDS, trained

LATER = (  # how tokenizers since 2023 cut, in tiktoken's notation
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
byte_level: Any = pre_tokenizers.ByteLevel
split: Any = pre_tokenizers.Split
FORMS: dict[str, Any] = {
    "as it was": byte_level(add_prefix_space=False),
    "single digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level(add_prefix_space=False)]),
    "later": pre_tokenizers.Sequence(
        [split(Regex(LATER), "isolated"), byte_level(add_prefix_space=False, use_regex=False)]
    ),
}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = trained("byte-level BPE", tmp_path_factory.mktemp("tokenizer"))
    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


words = st.one_of(
    st.sampled_from([*WORDS, "'s", "don't", "</s>", "<|im_end|>", "\u0301", "``", "12,000.50", "ا"]),
    st.text(max_size=3),
)
spaces = st.sampled_from([" ", " ", " ", "", "  ", "\n", " \n", "\n ", "\t", "\u00a0", "\u3000", " \r\n\r\n "])
texts = st.lists(st.tuples(words, spaces), max_size=12).map(lambda parts: "".join(map("".join, parts)))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=200, deadline=None)
@given(st.lists(texts, min_size=1, max_size=3))
def test_words_have_as_many_tokens_together_as_the_text(backend: Any, form: str, given: list[str]) -> None:
    backend.pre_tokenizer = FORMS[form]
    backend.normalizer = normalizers.NFC() if form == "later" else None
    assert allows(backend)
    counting = Words(backend)
    for text in [*given, *given]:
        assert counting.count(text) == len(backend.encode(text, add_special_tokens=False))


def test_tokenizers_whose_tokens_may_reach_over_a_space_are_not_counted_so(backend: Any, tmp_path: Path) -> None:
    def with_(**parts: Any) -> Any:
        changed = Tokenizer.from_str(backend.to_str())
        changed.pre_tokenizer = FORMS["as it was"]
        for name, part in parts.items():
            setattr(changed, name, part)
        return changed

    assert allows(with_())
    refused = [
        with_(pre_tokenizer=None),
        with_(pre_tokenizer=byte_level(add_prefix_space=True)),
        with_(pre_tokenizer=byte_level(add_prefix_space=False, use_regex=False)),
        with_(pre_tokenizer=pre_tokenizers.Metaspace()),
        with_(normalizer=normalizers.Lowercase()),
        with_(normalizer=normalizers.Replace(" ", "")),
    ]
    spaced, truncated = with_(), with_()
    spaced.add_tokens([AddedToken("a b")])
    truncated.enable_truncation(10)
    for each in [*refused, spaced, truncated]:
        assert not allows(each)
    for kind in ("unigram", "words"):
        assert not allows(Tokenizer.from_file(trained(kind, tmp_path / kind) + "/tokenizer.json"))
