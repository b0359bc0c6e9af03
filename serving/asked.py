"""What a client asked for, checked as far as the gateway needs it: which model, streamed or not, and whether the answer
can go on elsewhere. Pure; everything else in the body is the engine's business.
"""

from typing import Any

import msgspec

from serving.errors import bad_request

ENDPOINTS = ("chat/completions", "completions", "embeddings")


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Body(msgspec.Struct):
    """The fields the gateway looks at."""

    model: str
    messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    prompt: Any = msgspec.UNSET
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    grammar: Any = None
    json_schema: Any = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    modalities: list[str] | None = None
    stop: str | list[str] | None = None
    max_tokens: float | None = None
    """JSON knows no integers: 32.0 is one, too."""
    max_completion_tokens: float | None = None


class Message(msgspec.Struct):
    role: str
    content: Any = None


class Asked(msgspec.Struct, kw_only=True):
    """A request that may be sent to a worker."""

    endpoint: str
    body: Body
    raw: bytes
    cannot_move: str
    """Why its answer cannot go on elsewhere; empty where it can."""

    session: int
    """Requests of one conversation have the same."""

    @property
    def model(self) -> str:
        return self.body.model

    @property
    def streamed(self) -> bool:
        return bool(self.body.stream)

    @property
    def mode(self) -> str:
        """How a worker is asked for it (`serving.wire.Begin.mode`)."""
        if not self.cannot_move:
            return "text"
        return "raw" if self.streamed else "whole"

    @property
    def with_usage(self) -> bool:
        return bool(self.body.stream_options and self.body.stream_options.include_usage)


_decode = msgspec.json.Decoder(Body).decode
_decode_messages = msgspec.json.Decoder(list[Message]).decode


def read(endpoint: str, raw: bytes, session: str = "") -> Asked:
    """Check a body; ApiError 400 with the reason where it is wrong."""
    try:
        body = _decode(raw)
        messages = _check(endpoint, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as failure:
        raise bad_request(f"The body is not a request: {failure}") from None
    first = session or body.user or ""
    if not first and messages:
        first = "".join(repr(message.content) for message in messages[:2])
    return Asked(
        endpoint=endpoint,
        body=body,
        raw=raw,
        cannot_move=why_it_cannot_move(endpoint, body),
        session=hash((body.model, first)) if first else 0,
    )


def _check(endpoint: str, body: Body) -> list[Message]:
    if not body.model:
        raise bad_request("'model' is empty.")
    for name in ("max_tokens", "max_completion_tokens"):
        value = getattr(body, name)
        if value is not None and (value < 1 or value % 1):
            raise bad_request(f"'{name}' is {value:g}; it must be a whole number of at least 1.")
    if endpoint == "chat/completions":
        if body.messages is msgspec.UNSET:
            raise bad_request("'messages' is missing.")
        messages = _decode_messages(body.messages)
        if not messages:
            raise bad_request("'messages' is empty.")
        return messages
    if endpoint == "completions" and body.prompt is msgspec.UNSET:
        raise bad_request("'prompt' is missing.")
    if endpoint == "completions" and not isinstance(body.prompt, str | list):
        raise bad_request("'prompt' must be text or a list.")
    if endpoint == "embeddings" and body.input is msgspec.UNSET:
        raise bad_request("'input' is missing.")
    if endpoint == "embeddings" and body.stream:
        raise bad_request("Embeddings are not streamed.")
    return []


def why_it_cannot_move(endpoint: str, body: Body) -> str:
    """The first thing in a request that makes going on with half an answer wrong, in words for the client."""
    guided = (body.structured_outputs, body.guided_json, body.guided_regex, body.guided_choice, body.guided_grammar)
    formats = body.response_format is not None and body.response_format.get("type") != "text"
    reasons = {
        "it is not a text answer": endpoint == "embeddings" or bool(set(body.modalities or ()) - {"text"}),
        "it may call tools": bool(body.tools or body.functions),
        "its form is guided": formats or any(g is not None for g in (*guided, body.grammar, body.json_schema)),
        "it asks for more than one choice": (body.n or 1) > 1 or (body.best_of or 1) > 1,
        "it asks for log-probabilities": body.logprobs not in (None, False) or bool(body.top_logprobs),
        "it asks for an echo or a suffix": bool(body.echo) or bool(body.suffix),
        "its penalties count what was said": bool(body.presence_penalty or body.frequency_penalty),
        "its prompt is a list": endpoint == "completions" and not isinstance(body.prompt, str),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")
