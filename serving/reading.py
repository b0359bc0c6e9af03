"""An engine's stream as it comes, turned into records for the gateway: text, token counts, the end. Pure."""

from typing import Any

import msgspec

from serving import wire
from serving.asking import Asking, stops
from serving.errors import EngineFailed
from serving.seam import Stop

AFTER_STOP = 4
"""Events waited for after a stop string, for the engine's own end, which has the usage."""


class Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None
    refusal: str | None = None
    audio: Any = None

    def more_than_text(self) -> bool:
        others = (self.reasoning_content, self.reasoning, self.tool_calls, self.function_call, self.refusal)
        return any(others) or self.audio is not None


class Choice(msgspec.Struct):
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Chunk(msgspec.Struct):
    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None
    prompt_token_ids: list[int] | None = None


_decode = msgspec.json.Decoder(Chunk).decode
_encode = msgspec.json.encode


class NotText(Exception):
    """The answer is more than text and was to be collected from text."""


def events(buffer: bytes) -> tuple[list[bytes], bytes]:
    """The data of whole lines, and the rest."""
    lines = buffer.split(b"\n")
    rest = lines.pop()
    return [line[5:].strip() for line in lines if line.startswith(b"data:")], rest


class Reading:
    """One answer's text as it comes."""

    def __init__(self, begin: wire.Begin, asking: Asking, *, streamed: bool) -> None:
        self.begin = begin
        self.asking = asking
        self.streamed = streamed
        self.stop = Stop(stops(asking.body))
        self.filtered = bool(asking.overlap.left) or bool(self.stop.stops)
        self.seen = 0
        """Tokens of this engine so far."""
        self.reported = begin.tokens
        self.prompt_reported = False
        self.prompt_tokens = asking.prompt_tokens
        self.finish_reason: str | None = None
        self.done = False
        self.after_stop = 0
        self.ids: list[int] = []
        self.pieces: list[str] = []

    def take(self, data: list[bytes]) -> list[wire.OfRequest]:
        """Records for some events."""
        records: list[wire.OfRequest] = []
        for event in data:
            if event == b"[DONE]":
                self.done = True
                break
            self._chunk(event, records)
        self._flush(records)
        return records

    def _chunk(self, event: bytes, records: list[wire.OfRequest]) -> None:
        chunk = _decode(event)
        if chunk.error is not None:
            raise EngineFailed(f"the engine said {chunk.error}")
        choice = chunk.choices[0] if chunk.choices else None
        text = None
        if choice is not None:
            delta = choice.delta
            text = delta.content if delta is not None else choice.text
            if delta is not None and delta.more_than_text():
                self._pass_on(event, records)
            self.finish_reason = choice.finish_reason or self.finish_reason
        self._count(chunk, choice, text)
        if text and self.filtered:
            text = self.stop.feed(self.asking.overlap.feed(text))
        if text:
            self.pieces.append(text)
        if self.stop.found:
            self.finish_reason = "stop"
            self.after_stop += 1
            self.done = self.done or self.after_stop > AFTER_STOP

    def _count(self, chunk: Chunk, choice: Choice | None, text: str | None) -> None:
        ids = choice.token_ids if choice is not None else None
        if ids:
            self.ids += ids
        if chunk.usage is not None:
            if chunk.usage.completion_tokens or choice is None:
                self.seen = chunk.usage.completion_tokens
            if not self.prompt_tokens:
                self.prompt_tokens = self._prompt_alone(chunk.usage.prompt_tokens)
        elif text:
            self.seen += len(ids) if ids else 1
        prompt_ids = chunk.prompt_token_ids or (choice.prompt_token_ids if choice is not None else None)
        if prompt_ids and not self.begin.said:
            self.begin.prompt_ids = prompt_ids
            self.prompt_tokens = len(prompt_ids)

    def _prompt_alone(self, counted: int) -> int:
        """Without what had been said. Engines that do not count the half answer are taken at their word."""
        alone = counted - self.asking.prefix_tokens
        return alone if alone > 0 else counted

    def _flush(self, records: list[wire.OfRequest]) -> None:
        """Everything that may go out, with its tokens."""
        if self.prompt_tokens and not self.prompt_reported:
            self.prompt_reported = True
            records.append(wire.Prompt(self.begin.request, self.prompt_tokens, self.begin.prompt_ids))
        if self.pieces:
            tokens = self.asking.prefix_tokens + self.seen - self.reported
            self.reported += tokens
            records.append(wire.Text(self.begin.request, self.pieces, tokens, self.ids))
            self.pieces, self.ids = [], []

    def _pass_on(self, event: bytes, records: list[wire.OfRequest]) -> None:
        if not self.streamed:
            raise NotText
        self._flush(records)
        records.append(wire.Events(self.begin.request, renamed(event, self.begin)))

    def end(self) -> list[wire.OfRequest]:
        """The records of the end; EngineFailed where the stream ended before the answer."""
        if self.finish_reason is None and not self.done:
            raise EngineFailed("the engine's stream ended in the middle")
        records: list[wire.OfRequest] = []
        rest = self.stop.rest()
        if rest:
            self.pieces.append(rest)
        self._flush(records)
        left = self.asking.prefix_tokens + self.seen - self.reported
        reason = self.finish_reason or "stop"
        records.append(wire.End(self.begin.request, reason, left, self.prompt_tokens))
        return records


def renamed(document: bytes, begin: wire.Begin) -> bytes:
    """An event of the engine with the answer's own id and model."""
    return b"data: " + renamed_document(document, begin) + b"\n\n"


def renamed_document(document: bytes, begin: wire.Begin) -> bytes:
    content = msgspec.json.decode(document)
    if isinstance(content, dict):
        if "id" in content:
            content["id"] = begin.answer_id
        if "model" in content:
            content["model"] = begin.model
    return _encode(content)


def refusal(body: bytes) -> bytes:
    """An engine's refusal in OpenAI's form, whatever form it had."""
    try:
        content = msgspec.json.decode(body)
    except msgspec.DecodeError:
        content = body.decode(errors="replace")[:1000]
    if isinstance(content, dict) and isinstance(content.get("error"), dict):
        return body
    said = content.get("detail") or content.get("message") or content if isinstance(content, dict) else content
    message = said if isinstance(said, str) else _encode(said).decode()
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "refused_by_engine"}
    return _encode({"error": error})
