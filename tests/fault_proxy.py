"""A proxy between a client and an object store that does what networks and clouds do to requests now and then."""

import asyncio
import json
import random
import re
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

FAULTS = (
    "slow_down",  # 503, nothing done
    "error",  # 500, nothing done
    "reset",  # the connection is reset before anything is done
    "cut_request",  # the server gets half of the request's body
    "lost_answer",  # done, but the client never learns
    "cut_answer",  # half of the answer's body, then the end
    "stall",  # done, and the answer comes too late for anybody's patience
)
Plan = Callable[[str, str], str]
"""Method and path to the name of a fault, or an empty string."""


def seeded(seed: int, share: float, faults: tuple[str, ...] = FAULTS) -> Plan:
    """Every request fails with probability `share`, each way as likely."""
    draw = random.Random(seed)
    return lambda method, path: draw.choice(faults) if draw.random() < share else ""


def once(fault: str, method: str, path: str) -> Plan:
    """The first request of this method whose path matches fails, and no other."""
    left = [fault]
    return lambda m, p: left.pop() if left and m == method and re.search(path, p) else ""


def always(fault: str, method: str, path: str) -> Plan:
    """Every request of this method whose path matches fails."""
    return lambda m, p: fault if m == method and re.search(path, p) else ""


class FaultProxy:
    """Runs in a thread of its own from `with` to the end of its block; `plan` may be replaced at any time."""

    def __init__(self, target: str, *, stall_seconds: float = 20.0) -> None:
        address = urlsplit(target)
        self._target = address.hostname, address.port
        self._stall_seconds = stall_seconds
        self.plan: Plan = lambda method, path: ""
        self.done: list[str] = []
        """The faults that happened."""
        self.endpoint = ""
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        for _ in range(3):  # an aborted connection is closed in the loop's next rounds
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # either side has gone, or the proxy ends; so does this connection
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection goes on."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        fault = self.plan(method, path)
        if fault:
            self.done.append(fault)
        if fault == "reset":
            return self._reset(writer)
        if b"100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head)
        body = await _body(head, reader)
        if fault in ("slow_down", "error") or fault.startswith("refuse "):
            writer.write(_refusal(fault, method, path))
            await writer.drain()
            return True
        return await self._forward(head, body, method, fault, writer)

    async def _forward(self, head: bytes, body: bytes, method: str, fault: str, writer: asyncio.StreamWriter) -> bool:
        up_reader, up_writer = await asyncio.open_connection(*self._target, limit=1 << 20)
        self._writers.add(up_writer)
        try:
            up_writer.write(re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)[:-2] + b"Connection: close\r\n\r\n")
            if fault == "cut_request":
                up_writer.write(body[: len(body) // 2])
                return self._reset(writer)
            if fault == "flip_request" and body:
                body = body[:-1] + bytes([body[-1] ^ 1])
            up_writer.write(body)
            await up_writer.drain()
            answer = await up_reader.readuntil(b"\r\n\r\n")
            length = _length(answer)
            if fault == "lost_answer":
                return self._reset(writer)
            if fault == "stall":
                await asyncio.sleep(self._stall_seconds)
                return self._reset(writer)
            writer.write(re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", answer))
            if method == "HEAD":
                return True
            return await self._relay(up_reader, writer, length, fault)
        finally:
            up_writer.transport.abort()
            self._writers.discard(up_writer)

    async def _relay(
        self, source: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int | None, fault: str
    ) -> bool:
        """The answer's body, to where the server ends it."""
        left = length if length is not None else 1 << 62
        stop = left // 2 if fault == "cut_answer" and length else -1
        while left and (part := await source.read(min(left, 1 << 18))):
            left -= len(part)
            writer.write(part)
            await writer.drain()
            if left <= stop:
                return self._reset(writer)
        return length is not None

    @staticmethod
    def _reset(writer: asyncio.StreamWriter) -> bool:
        writer.transport.abort()
        return False


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """As it travels: of a known length or in chunks."""
    if b"transfer-encoding: chunked" in head.lower():
        parts = []
        while True:
            line = await reader.readuntil(b"\r\n")
            parts += [line, await reader.readexactly(int(line, 16) + 2)]
            if int(line, 16) == 0:
                return b"".join(parts)
    return await reader.readexactly(_length(head) or 0)


def _length(head: bytes) -> int | None:
    found = re.search(rb"(?i)\r\ncontent-length:\s*(\d+)", head)
    return int(found[1]) if found else None


def _refusal(fault: str, method: str, path: str) -> bytes:
    """An answer in the server's own form. `refuse 403 AccessDenied` names status and code, and what follows stands in
    S3's answer beside them; a region there is told in a header too, as S3 does."""
    named = {"slow_down": "refuse 503 SlowDown", "error": "refuse 500 InternalError"}.get(fault, fault)
    _, status, code, *more = named.split(" ", 3)
    inside = "".join(more)
    if re.match("/(upload/|download/)?storage/v1", path):
        said = f"by the test; {inside}"
        reasons = [{"message": said, "domain": "global", "reason": code}]
        text = json.dumps({"error": {"code": int(status), "message": said, "errors": reasons}})
        kind = "application/json"
    else:
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>by the test</Message>{inside}'
            "<RequestId>3FKT8W1V6DQ9</RequestId><HostId>2tW0pVq7</HostId></Error>"
        )
        kind = "application/xml"
    text = text if status != "200" else ""  # as if it were done
    region = re.search("<Region>(.*)</Region>", inside)
    head = (
        f"HTTP/1.1 {status} By-The-Test\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n"
        + (f"x-amz-bucket-region: {region[1]}\r\n" if region else "")
        + "\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else text.encode())
