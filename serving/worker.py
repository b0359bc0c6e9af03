"""The agent beside an engine: dials out to every gateway, answers what they send, and leaves politely.

No inbound port is needed, so the engine may stand behind NAT. What is specific to engines is in `serving.engine`.
"""

import asyncio
import logging
import os
import random
import socket
import time
from pathlib import Path

import aiohttp
import msgspec

from serving import wire
from serving.config import WorkerConfig
from serving.engine import Engine
from serving.errors import ServingError
from serving.notice import announced

log = logging.getLogger("serving.worker")

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5
"""A gateway that is started again must have its workers within a second."""
REFUSED_PAUSE_SECONDS = 5.0
LOOK_SECONDS = 0.5
NOTICE_SECONDS = 1.0


class Worker:
    """One engine, plugged into every gateway."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.name = config.name or f"{socket.gethostname()}-{os.getpid()}"
        self.engine = Engine(config)
        self.healthy = False
        self.waiting = 0
        self.leaving = ""
        self.introduced = asyncio.Event()
        self.plugs = [Plug(self, gateway) for gateway in config.gateways]
        self._leave = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to leave; ServingError where the first answer of a gateway is a refusal."""
        work = (self._look(), self._notice(), self._told_to_leave(), *(plug.keep() for plug in self.plugs))
        tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(each) for each in work]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            await self._drain()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.engine.close()

    def leave(self, reason: str) -> None:
        """The machine goes: no new requests, and answers under way move."""
        self.leaving = self.leaving or reason
        self._show_ready()
        self._leave.set()

    async def _told_to_leave(self) -> None:
        await self._leave.wait()

    async def _drain(self) -> None:
        log.info("leaving", extra={"reason": self.leaving})
        for plug in self.plugs:
            plug.send(wire.Leaving(self.leaving))
        deadline = time.monotonic() + self.config.leave_seconds
        while time.monotonic() < deadline and any(plug.tasks for plug in self.plugs):
            await asyncio.sleep(0.02)
        for plug in self.plugs:
            await plug.hang_up()

    async def _look(self) -> None:
        """See how the engine is, and say so at once when that changes."""
        while True:
            healthy = await self.engine.healthy()
            if healthy and not self.introduced.is_set():
                await self.engine.introduce()
                self.introduced.set()
            if healthy != self.healthy:
                log.info("engine is well" if healthy else "engine is not well", extra={"engine": self.engine.url})
                self.healthy = healthy
                for plug in self.plugs:
                    plug.beat()
            self.waiting = await self.engine.waiting() if healthy else 0
            self._show_ready()
            await asyncio.sleep(LOOK_SECONDS)

    def _show_ready(self) -> None:
        """Keep the file by which whoever started this worker knows that requests can come."""
        if not self.config.ready_file:
            return
        path = Path(self.config.ready_file)
        if self.healthy and not self.leaving and any(plug.is_in for plug in self.plugs):
            path.touch()
        else:
            path.unlink(missing_ok=True)

    async def _notice(self) -> None:
        """Ask whether the machine is to be taken away."""
        while self.config.notice:
            if await announced(self.engine.session, self.config.notice, os.environ):
                self.leave("the machine will be taken away")
            await asyncio.sleep(NOTICE_SECONDS)
        await asyncio.Event().wait()


class Plug:
    """The connection to one gateway."""

    def __init__(self, worker: Worker, gateway: str) -> None:
        self.worker = worker
        self.url = gateway.rstrip("/") + wire.PATH
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.was_in = False
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._outbox: list[wire.ToGateway] = []
        self._something = asyncio.Event()
        self._said = (time.monotonic(), 0)

    async def keep(self) -> None:
        """Be connected, again and again. ServingError where the very first answer is a refusal.

        Not before the engine was met: loading what going on needs may keep this process from saying anything.
        """
        await self.worker.introduced.wait()
        pause = FIRST_PAUSE_SECONDS
        while not self.worker.leaving:
            began = time.monotonic()
            refused = await self._connect_once()
            if refused:
                log.error("refused", extra={"gateway": self.url, "reason": refused})
                if not self.was_in:
                    raise ServingError(f"The gateway at {self.url} refused this worker: {refused}.")
                pause = REFUSED_PAUSE_SECONDS
            elif time.monotonic() - began > 1.0:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
        await asyncio.Event().wait()

    async def _connect_once(self) -> str:
        """One connection from beginning to end; a refusal's reason, or nothing."""
        headers = {"Authorization": f"Bearer {self.worker.config.token}"}
        try:
            async with self.worker.engine.session.ws_connect(
                self.url, headers=headers, heartbeat=5.0, max_msg_size=wire.LONGEST_BYTES
            ) as opened:
                return await self._serve(opened)
        except aiohttp.WSServerHandshakeError as failure:
            return "its token is missing or wrong" if failure.status in (401, 403) else ""
        except (aiohttp.ClientError, OSError, TimeoutError):
            return ""

    async def _serve(self, opened: aiohttp.ClientWebSocketResponse) -> str:
        worker = self.worker
        self._socket = opened
        hello = wire.Hello(worker.name, list(worker.engine.names), worker.config.slots)
        self._outbox = [hello]
        self.beat()
        writers = [asyncio.ensure_future(self._write(opened)), asyncio.ensure_future(self._beats())]
        try:
            while (message := await opened.receive()).type is aiohttp.WSMsgType.BINARY:
                for record in wire.decode_at_worker(message.data):
                    self._take(record)
        except msgspec.DecodeError as failure:
            log.error("gateway sent what is not a record", extra={"gateway": self.url, "reason": str(failure)})
            return ""
        finally:
            self._socket = None
            for task in [*writers, *self.tasks.values()]:
                task.cancel()
            await asyncio.gather(*writers, *self.tasks.values(), return_exceptions=True)
            self.tasks.clear()
            if self.was_in:
                log.warning("gateway lost", extra={"gateway": self.url})
        if message.type is aiohttp.WSMsgType.CLOSE and message.data == wire.REFUSED:
            return message.extra or "it does not say why"
        return ""

    def _take(self, record: wire.ToWorker) -> None:
        if isinstance(record, wire.Welcome):
            self.was_in = True
            log.info("connected", extra={"gateway": self.url})
        elif isinstance(record, wire.Begin):
            task = asyncio.ensure_future(self.worker.engine.answer(record, self.send))
            self.tasks[record.request] = task
            task.add_done_callback(lambda _: self.tasks.pop(record.request, None))
        elif record.request in self.tasks:
            self.tasks[record.request].cancel()

    def send(self, record: wire.ToGateway) -> None:
        self._outbox.append(record)
        self._something.set()

    async def _write(self, opened: aiohttp.ClientWebSocketResponse) -> None:
        """Send what is in the outbox, as much at a time as there is."""
        while True:
            await self._something.wait()
            self._something.clear()
            batch, self._outbox = self._outbox, []
            await opened.send_bytes(wire.encode(batch))

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(wire.BEAT_SECONDS)
            self.beat()

    def beat(self) -> None:
        """Say how we are."""
        if self._socket is None:
            return
        worker, now = self.worker, time.monotonic()
        (before, said), tokens = self._said, worker.engine.tokens
        self._said = (now, tokens)
        speed = (tokens - said) / max(now - before, 0.01)
        elsewhere = sum(len(plug.tasks) for plug in worker.plugs if plug is not self)
        self.send(wire.Beat(worker.healthy, elsewhere, worker.waiting, speed))

    @property
    def is_in(self) -> bool:
        """Whether the gateway has this worker now."""
        return self.was_in and self._socket is not None

    async def hang_up(self) -> None:
        if self._socket is not None:
            await self._socket.close()
