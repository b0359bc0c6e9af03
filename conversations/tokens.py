"""Tokens as the trainer will count them: the tokenizer's own, over the text that the chat template makes. Neither
transformers nor torch is loaded where a tokenizer.json is there already, as in every worker process.
"""

import functools
import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conversations import words
from conversations.errors import ConversationsError
from conversations.schema import Turn
from conversations.sources import missing

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_FILE, _FACTS = "tokenizer.json", "tokenizer_config.json"
_MARKS = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
"""What marks the assistant's text for training; it makes no text."""


class Counter:
    """Counts by a tokenizer and a chat template (Jinja); None takes the tokenizer's own template."""

    def __init__(self, tokenizer: str, template: str | None) -> None:
        self._backend, facts = load(tokenizer)
        own = template or facts.get("chat_template")
        if not isinstance(own, str):
            raise ConversationsError(f"The tokenizer {tokenizer} has no chat template; name one with --template.")
        self._special = {name: _text(facts.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
        self._template = _compiled(own)
        self._words = words.Words(self._backend) if words.allows(self._backend) else None
        self._known = functools.lru_cache(maxsize=256)(self._count)

    def count(self, turns: Sequence[Turn]) -> int:
        """Tokens of a conversation, system prompt and all."""
        return self._known(tuple(turns))

    def _count(self, turns: tuple[Turn, ...]) -> int:
        messages = [{"role": ROLES[turn.speaker], "content": turn.value} for turn in turns]
        text = self._template.render(messages=messages, add_generation_prompt=False, **self._special)
        if self._words is not None:
            return self._words.count(text)
        # fast: without each token's place in the text
        return len(self._backend.encode_batch_fast([text], add_special_tokens=False)[0])

    def borders(self, text: str) -> list[int]:
        """Where in a text each token begins that no other token reaches over, and at last its end."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        found: list[int] = []
        reached, newest = 0, -1
        for start, end in encoding.offsets:
            if start >= reached and start > newest:
                found.append(start)
                newest = start
            if end > reached:
                reached = end
        return [*found, len(text)]


def load(name: str) -> tuple[Any, dict[str, Any]]:
    """The tokenizer of a Hugging Face name, a folder, a tokenizer.json, or `package:NAME/FILE.gguf`, and what its
    configuration says. Raises ConversationsError.
    """
    if importlib.util.find_spec("tokenizers") is None:
        raise missing("transformers", "counting tokens")
    from tokenizers import Tokenizer

    given = Path(name).expanduser()
    file = given / _FILE if given.is_dir() else given
    if file.is_file() and file.suffix == ".json":
        beside = file.with_name(_FACTS)
        facts = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
        template = file.with_name("chat_template.jinja")
        if template.is_file():
            facts["chat_template"] = template.read_text(encoding="utf-8")
        return Tokenizer.from_file(str(file)), facts
    if name.endswith(".json"):
        raise ConversationsError(f"There is no tokenizer at {name}.")
    if file.suffix == ".model" or (given.is_dir() and not file.exists() and (given / "tokenizer.model").exists()):
        raise ConversationsError(
            f"{name} is a SentencePiece model, which is not read here; give the tokenizer.json of the same vocabulary, "
            "which most models on the Hub have beside it; AutoTokenizer.save_pretrained of transformers makes one."
        )
    tokenizer = _by_transformers(name)
    special = {key: _text(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    return tokenizer.backend_tokenizer, special | {"chat_template": tokenizer.chat_template}


def _by_transformers(name: str) -> Any:
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        if name.startswith("package:"):
            folder, file = _in_package(name)
            return AutoTokenizer.from_pretrained(folder, gguf_file=file)
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


def _text(token: Any) -> str:
    """A special token as its configuration has it: text, or an object with it."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _compiled(template: str) -> Any:
    """The template as transformers compiles one."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = refuse
    return environment.from_string(_MARKS.sub("", template))
