"""An OpenAI-compatible server beside the worker: is it well, how much has it to do, and its answers as records."""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from serving import wire
from serving.asking import Asking, ask
from serving.config import WorkerConfig
from serving.errors import EngineFailed
from serving.reading import NotText, Reading, events, refusal, renamed, renamed_document
from serving.seam import SeamBroken

if TYPE_CHECKING:
    from serving.template import Template

log = logging.getLogger("serving.engine")

LONGEST_DOCUMENT_BYTES = wire.LONGEST_BYTES * 3 // 4
"""Beside other records in a message."""
LOOK_SECONDS = 5.0
"""How long the engine may take to say how it is; it answers nothing while it loads."""
WAITING = re.compile(rb"^(?:vllm:num_requests_waiting|llamacpp:requests_deferred)(?:\{[^}]*\})? ([0-9.e+]+)", re.M)

Send = Callable[[wire.OfRequest], None]


class Engine:
    """Talks to one engine; one session for all."""

    def __init__(self, config: WorkerConfig) -> None:
        self.url = config.engine.rstrip("/").removesuffix("/v1")
        self.kind = config.kind
        self.tokenizer = config.tokenizer
        pairs = [model.partition("=") for model in config.models]
        self.names = {ours: theirs or ours for ours, _, theirs in pairs}
        """Our names of its models, and its own."""
        self.guess = not any(theirs for _, _, theirs in pairs)
        self.templates: dict[str, Template] = {}
        self.tokens = 0
        """Said since the engine was first asked."""
        self._session: aiohttp.ClientSession | None = None
        self._health_path = "/health"

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**18)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def healthy(self) -> bool:
        """Whether it answers. Engines without /health are asked for their models."""
        status = await self._status(self.url + self._health_path)
        if status in (404, 405) and self._health_path == "/health":
            self._health_path = "/v1/models"
            status = await self._status(self.url + self._health_path)
        return status is not None and status < 400

    async def _status(self, url: str) -> int | None:
        try:
            async with asyncio.timeout(LOOK_SECONDS), self.session.get(url) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def _get(self, path: str) -> bytes:
        """The body, or nothing where there is no such page."""
        try:
            async with asyncio.timeout(LOOK_SECONDS), self.session.get(self.url + path) as response:
                return await response.read() if response.status == 200 else b""
        except (aiohttp.ClientError, OSError, TimeoutError):
            return b""

    async def waiting(self) -> int:
        """Requests it has not begun, where it tells."""
        return sum(int(float(number)) for number in WAITING.findall(await self._get("/metrics")))

    async def introduce(self) -> None:
        """Find out what it is, what it calls its models, and load what going on with an answer needs."""
        models = _list_models(await self._get("/v1/models"))
        if self.guess and len(models) == 1 and not set(self.names) & set(models):
            self.names = dict.fromkeys(self.names, next(iter(models)))
        if self.kind == "auto":
            api = await self._get("/openapi.json")
            self.kind = "vllm" if "vllm" in models.values() else "transformers" if b'"/load_model"' in api else "openai"
        if self.kind == "transformers":
            from serving.template import load

            for name in set(self.names.values()):
                self.templates[name] = await asyncio.to_thread(load, self.tokenizer or name)
        log.info("engine is up", extra={"engine": self.url, "kind": self.kind, "models": self.names})

    async def answer(self, begin: wire.Begin, send: Send) -> None:
        """Answer a request; every way it may end is a record."""
        try:
            await (self._text(begin, send) if begin.mode == "text" else self._as_it_is(begin, send))
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            send(wire.Failed(begin.request, f"the engine cannot be reached ({type(failure).__name__})"))
        except EngineFailed as failure:
            send(wire.Failed(begin.request, str(failure)))
        except NotText:
            send(wire.Unfit(begin.request))
        except msgspec.DecodeError as failure:
            send(wire.Failed(begin.request, f"the engine sent what is not a chunk: {failure}"))

    async def _text(self, begin: wire.Begin, send: Send) -> None:
        name = self.names[begin.model]
        template = self.templates.get(name)
        asking = ask(begin, name, self.kind, template)
        try:
            await self._stream(begin, asking, send)
        except SeamBroken:
            log.info("seam broken", extra={"request": begin.answer_id})
            await self._stream(begin, ask(begin, name, self.kind, template, again=False), send)

    async def _stream(self, begin: wire.Begin, asking: Asking, send: Send) -> None:
        if asking.complete:
            send(wire.End(begin.request, "length", 0, asking.prompt_tokens))
            return
        streamed = bool(msgspec.json.decode(begin.body).get("stream"))
        reading = Reading(begin, asking, streamed=streamed)
        async with self._post(asking) as response:
            if response.status >= 400:
                await self._refused(begin, response, send)
                return
            rest = b""
            async for data in response.content.iter_any():
                whole, rest = events(rest + data)
                for record in reading.take(whole):
                    if isinstance(record, wire.Text):
                        self.tokens += record.tokens
                    send(record)
                if reading.done:
                    break
        for record in reading.end():
            send(record)

    async def _as_it_is(self, begin: wire.Begin, send: Send) -> None:
        """Pass on the engine's own events or document, under the answer's name."""
        asking = ask(begin, self.names[begin.model], self.kind, None)
        async with self._post(asking) as response:
            if response.status >= 400:
                await self._refused(begin, response, send)
                return
            if begin.mode == "whole":
                body = renamed_document(await response.read(), begin)
                if len(body) > LONGEST_DOCUMENT_BYTES:
                    # Nobody else's document is smaller, so this is not for another worker to try.
                    send(wire.Whole(begin.request, 413, refusal(b"The answer is too large; ask for less at a time.")))
                    return
                send(wire.Whole(begin.request, response.status, body))
                return
            await self._pass_on(begin, response, send)

    async def _pass_on(self, begin: wire.Begin, response: aiohttp.ClientResponse, send: Send) -> None:
        rest, finished = b"", False
        async for data in response.content.iter_any():
            whole, rest = events(rest + data)
            finished = finished or any(b'"finish_reason":"' in e.replace(b" ", b"") or e == b"[DONE]" for e in whole)
            passed = b"".join(renamed(event, begin) for event in whole if event != b"[DONE]")
            if passed:
                send(wire.Events(begin.request, passed))
        if not finished:
            raise EngineFailed("the engine's stream ended in the middle")
        send(wire.End(begin.request, "", 0, 0))

    def _post(self, asking: Asking) -> Any:
        headers = {"Content-Type": "application/json"}
        body = msgspec.json.encode(asking.body)
        return self.session.post(f"{self.url}/v1/{asking.endpoint}", data=body, headers=headers)

    async def _refused(self, begin: wire.Begin, response: aiohttp.ClientResponse, send: Send) -> None:
        """A refusal is the client's to know, unless the engine is busy, broken, or was asked in the middle."""
        body = await response.read()
        if response.status in (408, 429) or response.status >= 500 or begin.said:
            said = body.decode(errors="replace")[:200]
            send(wire.Failed(begin.request, f"the engine answered {response.status}: {said}"))
        else:
            send(wire.Whole(begin.request, response.status, refusal(body)))


def _list_models(body: bytes) -> dict[str, str]:
    """The engine's models and who owns them; engines differ, so anything else is nothing."""
    try:
        entries = msgspec.json.decode(body)["data"] if body else []
        return {entry["id"]: str(entry.get("owned_by", "")) for entry in entries}
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return {}
