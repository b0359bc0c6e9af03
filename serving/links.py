"""The gateway's end of its workers' connections: who may join, signs of life, an inbox for each request under way."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from serving import keys, wire
from serving.config import GatewayConfig, WorkerToken
from serving.pool import Member, Registry

log = logging.getLogger("serving.links")

HELLO_SECONDS = 5.0
MOST_MODELS = 100
MOST_UNREAD = 50_000
"""Records of one answer a client may leave untaken before it is cut off."""


class Moved(msgspec.Struct):
    """Not a worker's word but ours: go on elsewhere, and it is not that worker's fault."""

    reason: str


Inbox = list[wire.OfRequest | Moved]


class Attempt:
    """A request at one worker: what has come back of it and was not taken yet."""

    def __init__(self, request: int, model: str, now: float, owner: asyncio.Task[Any] | None) -> None:
        self.request = request
        self.model = model
        self.owner = owner
        """The task that serves the client."""
        self.movable = True
        """Until its answer turns out not to be."""
        self.begun = False
        """Something of the answer has come."""
        self.ended = False
        self.begun_at = self.heard_at = now
        self.unread_since = now
        self.inbox: Inbox = []
        self._wake: asyncio.Future[None] | None = None

    def put(self, record: wire.OfRequest | Moved) -> None:
        self.inbox.append(record)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def receive(self) -> Inbox:
        """Everything that has come; at least one."""
        while not self.inbox:
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        inbox, self.inbox = self.inbox, []
        return inbox


class Link:
    """A connected worker."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport | None, member: Member) -> None:
        self.socket = socket
        self.transport = transport
        self.member = member
        self.heard_at = time.monotonic()
        self.attempts: dict[int, Attempt] = {}
        self._next = 0
        self._outbox: list[wire.ToWorker] = []
        self._something = asyncio.Event()

    def send(self, record: wire.ToWorker) -> None:
        self._outbox.append(record)
        self._something.set()

    async def write(self) -> None:
        """Send what is in the outbox, as much at a time as there is."""
        while True:
            await self._something.wait()
            self._something.clear()
            batch, self._outbox = self._outbox, []
            await self.socket.send_bytes(wire.encode(batch))

    def begin(self, begin: wire.Begin) -> Attempt:
        """Send a request; its number is set here."""
        self._next += 1
        begin.request = self._next
        attempt = Attempt(self._next, begin.model, time.monotonic(), asyncio.current_task())
        self.attempts[self._next] = attempt
        self.send(begin)
        return attempt

    def finish(self, attempt: Attempt) -> bool:
        """Take an attempt off; False where it was off already."""
        if self.attempts.pop(attempt.request, None) is None:
            return False
        if not attempt.ended:
            self.send(wire.Cancel(attempt.request))
        return True

    def take(self, data: bytes) -> list[wire.Beat | wire.Leaving]:
        """Hand a message's records to their requests; those about the worker itself come back."""
        now = self.heard_at = time.monotonic()
        about_itself: list[wire.Beat | wire.Leaving] = []
        for record in wire.decode_at_gateway(data):
            if isinstance(record, wire.Beat | wire.Leaving):
                about_itself.append(record)
            elif not isinstance(record, wire.Hello):
                self._hand(record, now)
        return about_itself

    def _hand(self, record: wire.OfRequest, now: float) -> None:
        attempt = self.attempts.get(record.request)
        if attempt is None:
            return
        attempt.heard_at = now
        if not attempt.inbox:
            attempt.unread_since = now
        if isinstance(record, wire.Text | wire.Events):
            attempt.begun = self.member.answering = True
        elif not isinstance(record, wire.Prompt):
            attempt.ended = True
        attempt.put(record)


class Links:
    """All of a gateway's workers."""

    def __init__(
        self, config: GatewayConfig, registry: Registry, clock: Callable[[], float], refused: Callable[[], None]
    ) -> None:
        self.config = config
        self.registry = registry
        self.clock = clock
        self.refused = refused
        self.by_member: dict[Member, Link] = {}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """A worker's connection, from its token to its end."""
        token = keys.bearer(request.headers.get("Authorization"))
        entry = keys.find(self.config.worker_tokens, token) if token else None
        if entry is None:
            key = keys.find(self.config.keys, token) if token else None
            what = f"with the API key '{key.name}'" if key else "with a wrong token" if token else "without a token"
            self._refuse(request, f"a worker tried to register {what}")
            return web.json_response({"error": {"message": "The registration token is wrong."}}, status=401)
        socket = web.WebSocketResponse(max_msg_size=wire.LONGEST_BYTES, compress=False)
        await socket.prepare(request)
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                message = await socket.receive()
            first = wire.decode_at_gateway(message.data) if message.type is WSMsgType.BINARY else []
        except (TimeoutError, msgspec.DecodeError):
            first = []
        hello = first[0] if first else None
        if not isinstance(hello, wire.Hello):
            await socket.close(code=wire.REFUSED, message=b"the first record must be a hello")
            return socket
        reason = self._why_not(entry, hello)
        if reason:
            self._refuse(request, f"worker '{hello.worker}' with token '{entry.name}': {reason}")
            await socket.close(code=wire.REFUSED, message=reason.encode()[:120])
            return socket
        member = Member(hello.worker, entry.tenant, hello.models, hello.slots)
        await self._serve(Link(socket, request.transport, member), first)
        return socket

    def _why_not(self, entry: WorkerToken, hello: wire.Hello) -> str:
        """Why a worker may not serve what it claims; empty where it may."""
        if not 0 < len(hello.models) <= MOST_MODELS or hello.slots < 1:
            return f"it must have 1 to {MOST_MODELS} models and at least one slot"
        for model in hello.models:
            if not keys.allows(entry.models, model):
                return f"its token does not cover the model '{model}'"
            others = [other for other in self.config.worker_tokens if other.tenant != entry.tenant]
            named = any(model in other.models for other in others) and model not in entry.models
            if named or self.registry.owner(model) not in (None, entry.tenant):
                return f"the model '{model}' is another tenant's"
        return ""

    def _refuse(self, request: web.Request, reason: str) -> None:
        self.refused()
        log.warning("registration refused", extra={"reason": reason, "peer": request.remote})

    async def _serve(self, link: Link, first: list[wire.ToGateway]) -> None:
        member = link.member
        self.by_member[member] = link
        writer = asyncio.ensure_future(link.write())
        link.send(wire.Welcome())
        self.registry.join(member)
        log.info("worker joined", extra={"worker": member.name, "models": member.models})
        for record in first:
            if isinstance(record, wire.Beat):
                self._note(link, record)
        reason = "its connection ended"
        try:
            async for message in link.socket:
                if message.type is WSMsgType.BINARY:
                    for record in link.take(message.data):
                        self._note(link, record)
        except msgspec.DecodeError as failure:
            reason = f"it sent what is not a record: {failure}"
        finally:
            writer.cancel()
            self._lose(link, reason)

    def _note(self, link: Link, record: wire.Beat | wire.Leaving) -> None:
        member = link.member
        if isinstance(record, wire.Leaving):
            log.info("worker leaves", extra={"worker": member.name, "reason": record.reason})
            member.leaving = True
            self._move(link)
            return
        was_ready = member.ready(self.clock())
        member.healthy = record.healthy
        member.in_flight_elsewhere = record.elsewhere
        member.waiting = record.waiting
        member.tokens_per_second = record.tokens_per_second
        self.registry.pump(member)
        if not was_ready:
            self._move_from_leaving(member)

    def _move_from_leaving(self, joined: Member) -> None:
        """A worker is ready: answers on workers that leave have somewhere to go."""
        for link in list(self.by_member.values()):
            if link.member.leaving and set(link.member.models) & set(joined.models):
                self._move(link)

    def _move(self, link: Link) -> None:
        """Send on what can go on elsewhere, where there is an elsewhere. The rest stays as long as it can."""
        for attempt in list(link.attempts.values()):
            if attempt.movable and self.registry.pools[attempt.model].any_ready():
                attempt.put(Moved("its worker is leaving"))
                self.finish(link, attempt)

    def finish(self, link: Link, attempt: Attempt) -> None:
        """Nobody takes from this attempt any more; its slot is free. May be called again."""
        if link.finish(attempt):
            self.registry.release(link.member)

    def _lose(self, link: Link, reason: str) -> None:
        if self.by_member.pop(link.member, None) is None:
            return
        log.warning("worker lost", extra={"worker": link.member.name, "reason": reason})
        self.registry.leave(link.member)
        for attempt in link.attempts.values():
            attempt.put(Moved(f"its worker was lost: {reason}"))
        if link.transport is not None:
            link.transport.abort()

    async def watch(self) -> None:
        """Find the silent, for as long as the gateway runs: workers, streams, and clients that take nothing."""
        config = self.config
        every = min(0.1, config.stall_seconds / 4, config.lost_seconds / 4)
        looked_at = time.monotonic()
        while True:
            await asyncio.sleep(every)
            now = time.monotonic()
            late, looked_at = now - looked_at - every, now
            if late > config.lost_seconds / 3:
                # We were not running, so what they said in the meantime is not read yet.
                continue
            for link in list(self.by_member.values()):
                if now - link.heard_at > config.lost_seconds:
                    self._lose(link, f"it said nothing for {config.lost_seconds:g} s")
                    continue
                for attempt in list(link.attempts.values()):
                    self._look_at(link, attempt, now)

    def _look_at(self, link: Link, attempt: Attempt, now: float) -> None:
        config = self.config
        patience = config.stall_seconds if attempt.begun else config.first_token_seconds
        if not attempt.ended and now - attempt.heard_at > patience:
            attempt.put(wire.Failed(attempt.request, f"no token came for {patience:g} s"))
            self.finish(link, attempt)
        unread = attempt.inbox and now - attempt.unread_since > config.client_seconds
        if (unread or len(attempt.inbox) > MOST_UNREAD) and attempt.owner is not None:
            log.warning("client cut off", extra={"reason": "it does not take in its answer"})
            attempt.owner.cancel()

    def close(self) -> None:
        """The gateway stops: workers see the connection end at once."""
        for link in list(self.by_member.values()):
            self._lose(link, "the gateway stops")
