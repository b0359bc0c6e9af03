"""A model's chat template and tokenizer, for engines that cannot be told to go on with an answer themselves.

Read with tokenizers and jinja2 alone: importing transformers takes seconds, and a worker must be back within one. A
test holds what is rendered against transformers' own.
"""

import datetime
import json
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from serving.errors import EngineFailed, ServingError

SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


class Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what to learn from; in a prompt it means nothing."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 has it)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Template:
    """Renders prompts and counts tokens."""

    def __init__(self, tokenizer: Tokenizer, template: str, special: dict[str, str]) -> None:
        self.tokenizer = tokenizer
        self.special = special
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        self.template = environment.from_string(template)
        self.adds_bos = tokenizer.encode("").tokens[:1] == [special.get("bos_token")]

    def render(self, messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
        """The prompt of a conversation, without the beginning-of-text mark where the engine adds it itself."""
        try:
            text = self.template.render(messages=messages, add_generation_prompt=True, **self.special, **options)
        except jinja2.TemplateError as failure:
            raise EngineFailed(f"the chat template refuses the conversation: {failure}") from None
        return text.removeprefix(self.special["bos_token"]) if self.adds_bos else text

    def count(self, text: str) -> int:
        return len(self.tokenizer.encode(text))


def load(where: str) -> Template:
    """From a model's folder, or by its name on the Hugging Face hub. ServingError where it cannot be."""
    try:
        config: dict[str, Any] = json.loads(_file(where, "tokenizer_config.json").read_text())
        tokenizer = Tokenizer.from_str(_file(where, "tokenizer.json").read_text())
        template = config.get("chat_template") or _file(where, "chat_template.jinja").read_text()
    except (OSError, ValueError) as failure:
        raise ServingError(
            f"The chat template of {where} cannot be loaded ({failure}); name a folder that has it by --tokenizer."
        ) from None
    if isinstance(template, list):
        template = {each["name"]: each["template"] for each in template}["default"]
    tokens = {name: config.get(name) for name in SPECIAL}
    special = {name: token["content"] if isinstance(token, dict) else token for name, token in tokens.items() if token}
    return Template(tokenizer, template, special)


def _file(where: str, name: str) -> Path:
    if Path(where).is_dir():
        return Path(where) / name
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(where, name))


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
