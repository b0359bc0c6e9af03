"""Tokens as the trainer will count them: the tokenizer's own, over the text that the chat template makes."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conversations.errors import ConversationsError
from conversations.schema import Turn
from conversations.sources import missing

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


class Counter:
    """Counts by a tokenizer and a chat template (Jinja); None takes the tokenizer's own template."""

    def __init__(self, tokenizer: str, template: str | None) -> None:
        self._tokenizer = load(tokenizer)
        self._template = template or self._tokenizer.chat_template
        if self._template is None:
            raise ConversationsError(f"The tokenizer {tokenizer} has no chat template; name one with --template.")
        self._backend = self._tokenizer.backend_tokenizer

    def save(self, folder: str) -> None:
        """Into a folder that loads fast: a GGUF file takes many seconds."""
        self._tokenizer.save_pretrained(folder)

    def count(self, turns: Sequence[Turn]) -> int:
        """Tokens of a conversation, system prompt and all."""
        messages = [{"role": ROLES[turn.speaker], "content": turn.value} for turn in turns]
        text = self._tokenizer.apply_chat_template(messages, chat_template=self._template, tokenize=False)
        return len(self._backend.encode(text, add_special_tokens=False))

    def borders(self, text: str) -> list[int]:
        """Where in a text each token begins that no other token reaches over, and at last its end."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        found: list[int] = []
        reached = 0
        for start, end in encoding.offsets:
            if start >= reached and (not found or start > found[-1]):
                found.append(start)
            reached = max(reached, end)
        return [*found, len(text)]


def load(name: str) -> Any:
    """The tokenizer of a Hugging Face name, a folder, a tokenizer.json, or `package:NAME/FILE.gguf`.

    Raises ConversationsError.
    """
    if importlib.util.find_spec("transformers") is None:
        raise missing("transformers", "counting tokens")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are what runs at once
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    fast: Any = PreTrainedTokenizerFast
    try:
        if name.startswith("package:"):
            folder, file = _in_package(name)
            return AutoTokenizer.from_pretrained(folder, gguf_file=file)
        if name.endswith(".json"):
            if not Path(name).expanduser().is_file():
                raise ConversationsError(f"There is no tokenizer at {name}.")
            return fast(tokenizer_file=str(Path(name).expanduser()))
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as failure:
        why = str(failure).strip().splitlines()[0] if str(failure).strip() else type(failure).__name__
        raise ConversationsError(f"There is no tokenizer '{name}' that can be loaded: {why}") from None


def _in_package(name: str) -> tuple[str, str]:
    package, _, file = name.removeprefix("package:").partition("/")
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise ConversationsError(f"The package {package} is not installed: pip install {package}")
    return found.submodule_search_locations[0], file
