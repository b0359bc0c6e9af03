"""How a request is put to an engine, from the beginning or from the middle of its answer. Pure.

What engines understand differs (`kind`):
    vllm           gives token ids and takes them as a prompt: the very same tokens go on
    transformers   takes a prompt rendered by us; its chat endpoint cannot go on
    openai         takes the half answer as the assistant's last message (vLLM without ids, llama.cpp, Ollama)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from serving.seam import Overlap, Whitespace, safe_pieces
from serving.wire import Begin

if TYPE_CHECKING:
    from serving.template import Template


class Asking(msgspec.Struct, kw_only=True):
    """A request to an engine, and how its answer joins what was said."""

    endpoint: str
    body: dict[str, Any]
    prefix_tokens: int = 0
    """How many tokens of the answer are in the prompt."""
    prompt_tokens: int = 0
    """Of the client's prompt alone, where it is known beforehand."""
    overlap: Overlap = msgspec.field(default_factory=lambda: Overlap(""))

    @property
    def complete(self) -> bool:
        """Nothing is left to say."""
        limit = self.body.get("max_tokens")
        return limit is not None and limit < 1


def is_sampled(body: dict[str, Any]) -> bool:
    """Whether the next token is drawn: then the same words do not come again. Unknown (no temperature) is not."""
    return bool(body.get("temperature")) and body.get("top_k") != 1


def ask(begin: Begin, engine_model: str, kind: str, template: "Template | None", *, again: bool = True) -> Asking:
    """The request for `begin`. `again` is whether the engine is made to say the last word again, to check the seam."""
    body: dict[str, Any] = msgspec.json.decode(begin.body)
    body["model"] = engine_model
    if begin.mode != "text":
        body["stream"] = begin.mode == "raw"
        return Asking(endpoint=begin.endpoint, body=body)
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    if body.get("max_completion_tokens") is not None:
        # Older than this name are some engines, which pass over it in silence.
        body["max_tokens"] = body.pop("max_completion_tokens")
    if body.get("max_tokens") is not None:
        body["max_tokens"] = int(body["max_tokens"])
    if kind == "vllm":
        body["stream_options"]["continuous_usage_stats"] = True
        body["return_token_ids"] = True
    if not begin.said:
        return Asking(endpoint=begin.endpoint, body=body)
    # With stop strings engines hold text back whose ids are out already.
    if kind == "vllm" and begin.prompt_ids and begin.said_ids and not stops(body):
        return _by_ids(begin, body)
    return _by_text(begin, body, kind, template, again=again and not is_sampled(body))


def _by_ids(begin: Begin, body: dict[str, Any]) -> Asking:
    for name in ("messages", "continue_final_message", "add_generation_prompt", "chat_template_kwargs", "tool_choice"):
        body.pop(name, None)
    body["prompt"] = begin.prompt_ids + begin.said_ids
    said = len(begin.said_ids)
    _reduce(body, said)
    return Asking(endpoint="completions", body=body, prefix_tokens=said, prompt_tokens=len(begin.prompt_ids))


def _by_text(begin: Begin, body: dict[str, Any], kind: str, template: "Template | None", *, again: bool) -> Asking:
    pieces = safe_pieces(begin.said) if again else len(begin.said)
    prefix, said = "".join(begin.said[:pieces]), "".join(begin.said)
    overlap = Overlap(said[len(prefix) :])
    tokens = round(begin.tokens * pieces / len(begin.said))
    if begin.endpoint == "completions":
        prompt = body["prompt"]
        body["prompt"] = prompt + prefix
    elif template is not None:
        prompt = template.render(body.pop("messages"), body.pop("chat_template_kwargs", None) or {})
        body["prompt"] = prompt + prefix
    else:
        if prefix != prefix.rstrip():
            overlap = Whitespace(prefix[len(prefix.rstrip()) :] + overlap.left)
            prefix = prefix.rstrip()
        body["messages"] = _with_answer(body["messages"], prefix)
        body |= {"continue_final_message": True, "add_generation_prompt": False} if prefix else {}
    known = template is not None and "prompt" in body
    prompt_tokens = template.count(prompt) if known and template is not None else 0
    if known and template is not None:
        tokens = template.count(body["prompt"]) - prompt_tokens
    _reduce(body, tokens)
    endpoint = "completions" if "prompt" in body else begin.endpoint
    return Asking(endpoint=endpoint, body=body, prefix_tokens=tokens, prompt_tokens=prompt_tokens, overlap=overlap)


def _with_answer(messages: list[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """The conversation with the half answer at its end; one that ended with the assistant's words is gone on with."""
    if not prefix:
        return messages
    last = messages[-1]
    if last.get("role") == "assistant" and isinstance(last.get("content"), str):
        return [*messages[:-1], {**last, "content": last["content"] + prefix}]
    return [*messages, {"role": "assistant", "content": prefix}]


def _reduce(body: dict[str, Any], tokens: int) -> None:
    """What was said counts against the limits."""
    if body.get("max_tokens") is not None:
        body["max_tokens"] -= tokens
    if body.get("min_tokens"):
        body["min_tokens"] = max(0, body["min_tokens"] - tokens)


def stops(body: dict[str, Any]) -> Sequence[str]:
    stop = body.get("stop") or []
    return [stop] if isinstance(stop, str) else stop
