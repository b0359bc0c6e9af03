"""One request from its worker to its last byte: tried again before the first token, gone on with elsewhere after it."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from serving import wire
from serving.answer import DONE, Answer
from serving.asked import Asked
from serving.config import ApiKey
from serving.errors import ApiError, no_such_model, worker_lost
from serving.keys import allows
from serving.links import Attempt, Link, Moved
from serving.pool import Member, Pool

if TYPE_CHECKING:
    from serving.gateway import Gateway

log = logging.getLogger("serving.exchange")

TRIES_WITHOUT_A_TOKEN = 4
LOOK_AGAIN_SECONDS = 0.02


Outcome = wire.End | wire.Whole | wire.Failed | wire.Unfit | Moved


class Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Document(msgspec.Struct):
    usage: Usage | None = None


def usage_of(document: bytes) -> tuple[int, int]:
    """Tokens of prompt and completion, as an engine's document says; 0 where it does not."""
    try:
        usage = msgspec.json.decode(document, type=Document).usage or Usage()
    except msgspec.DecodeError:
        return 0, 0
    return usage.prompt_tokens, usage.completion_tokens


class Exchange:
    """The state of one request."""

    def __init__(self, gateway: "Gateway", request: web.Request, asked: Asked, key: ApiKey, answer_id: str) -> None:
        self.gateway = gateway
        self.request = request
        self.asked = asked
        self.key = key
        self.answer = Answer(answer_id, asked.model, int(time.time()), chat=asked.endpoint == "chat/completions")
        self.began = time.monotonic()
        self.response: web.StreamResponse | None = None
        """Set once something was sent of a stream."""
        self.mode = asked.mode
        self.cannot_move = asked.cannot_move
        self.tried: set[Member] = set()
        self.workers: list[str] = []
        self.failovers = 0
        self.first_token_at: float | None = None
        self.lost_at: float | None = None

    async def run(self) -> web.StreamResponse:
        """Answer the client; ApiError where it cannot be done and nothing was sent yet."""
        tries = 0
        while True:
            tokens = self.answer.tokens
            link = await self._place()
            attempt = link.begin(self._begin())
            self.workers.append(link.member.name)
            try:
                outcome = await self._follow(attempt)
            finally:
                self.gateway.links.finish(link, attempt)
            if isinstance(outcome, wire.End | wire.Whole):
                link.member.succeeded()
                return await self._finish(outcome)
            if isinstance(outcome, wire.Unfit):
                self.mode, self.cannot_move = "whole", "its answer is more than text"
                continue
            if isinstance(outcome, wire.Failed):
                link.member.failed(self.gateway.clock(), attempt.begun_at)
            self.tried.add(link.member)
            tries = 1 if self.answer.tokens > tokens else tries + 1
            self._go_on(outcome.reason, tries)
            if tries > 1:
                await asyncio.sleep(LOOK_AGAIN_SECONDS * 2**tries)

    async def _place(self) -> Link:
        """A worker for it, with a slot taken."""
        config = self.gateway.config
        pool = await self._pool()
        seconds = config.queue_seconds if self.failovers or pool.any_ready() else config.no_worker_seconds
        moved = self.lost_at is not None
        while True:
            member = await pool.take(self.key.name, self.asked.session, seconds, moved=moved, avoid=self.tried)
            link = self.gateway.links.by_member.get(member)
            if link is not None:
                return link
            # It was lost between the moment its slot came free and this one.
            self.gateway.registry.release(member)

    async def _pool(self) -> Pool:
        """The model's workers. Right after a start, an unknown model may only not have connected again yet."""
        registry, model = self.gateway.registry, self.asked.model
        while True:
            pool = registry.pools.get(model)
            if pool is not None and pool.tenant in ("", self.key.tenant) and allows(self.key.models, model):
                return pool
            if pool is not None or time.monotonic() > self.gateway.started_at + self.gateway.config.grace_seconds:
                raise no_such_model(model)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    def _begin(self) -> wire.Begin:
        answer = self.answer
        return wire.Begin(
            request=0,
            endpoint=self.asked.endpoint,
            mode=self.mode,
            model=self.asked.model,
            answer_id=answer.answer_id,
            body=self.asked.raw,
            said=answer.pieces,
            tokens=answer.tokens,
            prompt_ids=answer.prompt_ids,
            said_ids=answer.ids,
        )

    def _go_on(self, reason: str, tries: int) -> None:
        """Note a loss; ApiError where it cannot be made good."""
        gateway, labels = self.gateway, (self.asked.model, self.key.name)
        log.warning("attempt failed", extra={"request": self.answer.answer_id, "reason": reason, "try": tries})
        if tries >= TRIES_WITHOUT_A_TOKEN:
            raise worker_lost(f"{tries} workers in a row failed; the last because {reason}.")
        self.lost_at = self.lost_at or time.monotonic()
        if self.response is None and not self.answer.pieces:
            gateway.metrics.retries.labels(*labels).inc()
            return
        if self.cannot_move:
            raise worker_lost(f"The answer cannot go on elsewhere because {self.cannot_move}; {reason}.")
        self.failovers += 1
        gateway.metrics.failovers.labels(*labels).inc()
        gateway.metrics.carried.labels(*labels).inc(self.answer.tokens)

    async def _follow(self, attempt: Attempt) -> Outcome:
        """Pass on what comes, until the answer is complete or the attempt has failed."""
        while True:
            sent: list[bytes] = []
            outcome: Outcome | None = None
            for record in await attempt.receive():
                outcome = self._take(record, sent)
                if outcome is not None:
                    break
            attempt.movable = not self.cannot_move
            if sent:
                await self._send(b"".join(sent))
            if outcome is not None:
                return outcome

    def _take(self, record: wire.OfRequest | Moved, sent: list[bytes]) -> Outcome | None:
        """Put what the client gets of a record into `sent`; a record that ends the attempt comes back."""
        answer = self.answer
        if isinstance(record, wire.Text):
            answer.add(record.pieces, record.tokens, record.ids)
            if self.asked.streamed:
                sent.append(answer.events(record.pieces))
            return None
        if isinstance(record, wire.Prompt):
            if not answer.prompt_tokens:
                answer.prompt_tokens, answer.prompt_ids = record.tokens, record.ids
            return None
        if isinstance(record, wire.Events):
            self.cannot_move = self.cannot_move or "its answer is more than text"
            sent.append(record.data)
            return None
        if isinstance(record, wire.End):
            answer.finish_reason = record.finish_reason
            answer.tokens = max(0, answer.tokens + record.tokens)
            answer.prompt_tokens = answer.prompt_tokens or record.prompt_tokens
        return record

    async def _send(self, data: bytes) -> None:
        now = time.monotonic()
        labels = (self.asked.model, self.key.name)
        if self.first_token_at is None:
            self.first_token_at = now
            self.gateway.metrics.first_token.labels(*labels).observe(now - self.began)
        if self.lost_at is not None:
            self.gateway.metrics.gap.labels(*labels).observe(now - self.lost_at)
            self.lost_at = None
        if self.response is None:
            self.response = web.StreamResponse(headers=self.gateway.headers(self.answer.answer_id))
            self.response.content_type = "text/event-stream"
            await self.response.prepare(self.request)
            if self.mode == "text":
                data = self.answer.opening() + data
        await self.response.write(data)

    async def _finish(self, outcome: wire.End | wire.Whole) -> web.StreamResponse:
        headers = self.gateway.headers(self.answer.answer_id)
        if isinstance(outcome, wire.Whole):
            self.answer.prompt_tokens, self.answer.tokens = usage_of(outcome.body)
            return web.Response(
                status=outcome.status, body=outcome.body, content_type="application/json", headers=headers
            )
        if not self.asked.streamed:
            return web.Response(body=self.answer.document(), content_type="application/json", headers=headers)
        await self._send(self.answer.ending(with_usage=self.asked.with_usage) if self.mode == "text" else DONE)
        assert self.response is not None
        await self.response.write_eof()
        return self.response

    async def fail(self, failure: ApiError) -> web.StreamResponse | None:
        """Tell the client in the stream, where one has begun."""
        if self.response is None:
            return None
        await self.response.write(failure.event())
        await self.response.write_eof()
        return self.response
