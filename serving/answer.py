"""One answer as its client sees it: the journal of what was sent, and OpenAI's documents and events around it. Pure."""

from typing import Any

import msgspec

encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


class Answer:
    """What has been said so far, and how it is written. `chat` or plain completion."""

    def __init__(self, answer_id: str, model: str, created: int, *, chat: bool) -> None:
        self.answer_id = answer_id
        self.model = model
        self.created = created
        self.chat = chat
        self.pieces: list[str] = []
        self.ids: list[int] = []
        self.prompt_ids: list[int] = []
        self.tokens = 0
        self.prompt_tokens = 0
        self.finish_reason: str | None = None
        head = encode({"id": answer_id, "object": self._object(".chunk"), "created": created, "model": model})[:-1]
        opening = b'"delta":{"content":' if chat else b'"text":'
        self._before = b"data: " + head + b',"choices":[{"index":0,' + opening
        self._after = (b'},"finish_reason":null}]}\n\n') if chat else b',"finish_reason":null}]}\n\n'
        self._head = head

    def _object(self, suffix: str) -> str:
        return "chat.completion" + suffix if self.chat else "text_completion"

    def add(self, pieces: list[str], tokens: int, ids: list[int]) -> None:
        self.pieces += pieces
        self.tokens += tokens
        self.ids += ids

    def opening(self) -> bytes:
        """The first event of a stream: a chat's says who speaks."""
        if not self.chat:
            return b""
        delta = b',"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
        return b"data: " + self._head + delta

    def events(self, pieces: list[str]) -> bytes:
        """One event a piece."""
        return b"".join([self._before + encode(piece) + self._after for piece in pieces])

    def ending(self, *, with_usage: bool) -> bytes:
        """The last events of a stream."""
        empty: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        choice = encode([{"index": 0, **empty, "finish_reason": self.finish_reason}])
        last = b"data: " + self._head + b',"choices":' + choice + b"}\n\n"
        if with_usage:
            last += b"data: " + self._head + b',"choices":[],"usage":' + encode(self.usage()) + b"}\n\n"
        return last + DONE

    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        }

    def text(self) -> str:
        return "".join(self.pieces)

    def document(self) -> bytes:
        """The whole answer, for a client that did not ask for a stream."""
        said: dict[str, Any]
        if self.chat:
            said = {"message": {"role": "assistant", "content": self.text(), "refusal": None}}
        else:
            said = {"text": self.text()}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": self.finish_reason}
        head = {"id": self.answer_id, "object": self._object(""), "created": self.created, "model": self.model}
        return encode({**head, "choices": [choice], "usage": self.usage()})
