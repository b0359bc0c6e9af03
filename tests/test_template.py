"""Our reading of chat templates against transformers' own, for templates of the kinds there are."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from serving.errors import EngineFailed, ServingError
from serving.template import Template, load

CHATML = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}<|im_start|>system\nHi<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_BOS = (
    "{{ bos_token }}{%- for m in messages %}\n    {%- if m.role == 'assistant' %}{% generation %}"
    "{{ m.content + eos_token }}{% endgeneration %}\n    {%- elif m.role == 'nobody' %}{% continue %}\n"
    "    {%- else %}[{{ m.role }}] {{ m | tojson }}{%- endif %}\n{%- endfor %}{{ mood | default('calm') }}"
)
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": " Größe <b> & 'é'\n"},
    {"role": "assistant", "content": "yes"},
    {"role": "nobody", "content": "-"},
    {"role": "user", "content": "🎉"},
]


def keep(folder: Path, template: str, *, adds_bos: bool) -> PreTrainedTokenizerFast:
    symbols = {symbol: place for place, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=symbols, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    if adds_bos:
        mark = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", mark)])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    made.chat_template = template
    made.save_pretrained(folder)
    return made


@pytest.mark.parametrize("template", [CHATML, WITH_BOS], ids=["chatml", "with everything"])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_a_prompt_is_what_transformers_makes_of_it(tmp_path: Path, template: str, adds_bos: bool) -> None:
    theirs, ours = keep(tmp_path, template, adds_bos=adds_bos), load(str(tmp_path))
    text = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False, mood="glad")
    assert ours.render(MESSAGES, {"mood": "glad"}) == (text.removeprefix("<s>") if adds_bos else text)
    assert ours.count("Größe 🎉") == len(theirs("Größe 🎉").input_ids)


def test_a_template_that_refuses_and_one_that_is_not_there_are_sentences(tmp_path: Path) -> None:
    keep(tmp_path, "{{ raise_exception('roles must alternate') }}", adds_bos=False)
    with pytest.raises(EngineFailed, match="roles must alternate"):
        load(str(tmp_path)).render(MESSAGES, {})
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ServingError, match="--tokenizer"):
        load(str(tmp_path))


def test_a_template_cannot_reach_beyond_its_sandbox(tmp_path: Path) -> None:
    keep(tmp_path, "{{ messages.__class__.__mro__[1].__subclasses__() }}", adds_bos=False)
    template: Template = load(str(tmp_path))
    with pytest.raises(EngineFailed):
        template.render(MESSAGES, {})
