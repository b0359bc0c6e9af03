"""The client's side of the gateway's benchmark: what it asks, and what it saw of the answers. Engines count, so a token
lost or doubled shows.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp

NUMBER = re.compile(r"t(\d+)")


def body(tokens: int, pause_ms: float = 0, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"itl={pause_ms:g} count"}]
    return {"model": "dummy", "messages": messages, "max_tokens": tokens, **more}


class Seen:
    """What a client saw of one stream."""

    def __init__(self) -> None:
        self.id = ""
        self.numbers: list[int] = []
        self.gaps: list[float] = []
        self.first: float | None = None
        self.done = False
        self.error = ""

    def whole(self, tokens: int) -> bool:
        return self.done and not self.error and self.numbers == list(range(tokens))


async def stream(session: aiohttp.ClientSession, url: str, tokens: int, pause_ms: float = 0) -> Seen:
    seen, last, began = Seen(), 0.0, time.perf_counter()
    try:
        async with session.post(f"{url}/v1/chat/completions", json=body(tokens, pause_ms, stream=True)) as response:
            if response.status != 200:
                seen.error = f"{response.status} {(await response.text())[:200]}"
            async for line in response.content:
                if line.startswith(b"data: [DONE]"):
                    seen.done = True
                elif line.startswith(b"data: "):
                    now = time.perf_counter()
                    take(seen, line, now, last, began)
                    last = now
    except (aiohttp.ClientError, TimeoutError) as failure:
        seen.error = seen.error or type(failure).__name__
    return seen


def take(seen: Seen, line: bytes, now: float, last: float, began: float) -> None:
    event = json.loads(line[6:])
    if "error" in event:
        seen.error = event["error"]["message"]
        return
    text = event["choices"][0]["delta"].get("content") if event["choices"] else None
    if not text:
        return
    seen.id = event["id"]
    if seen.numbers:
        seen.gaps.append(now - last)
    else:
        seen.first = now - began
    seen.numbers += [int(number) for number in NUMBER.findall(text)]


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
        yield session


async def wait_until_it_answers(session: aiohttp.ClientSession, url: str) -> None:
    """SkyServe's balancer holds requests that come before it knows its replicas, so each try is short."""
    patience = aiohttp.ClientTimeout(total=5)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.post(f"{url}/v1/chat/completions", json=body(1), timeout=patience) as response:
                if response.status == 200:
                    return
        await asyncio.sleep(0.2)
    raise AssertionError(f"{url} never answered")


async def one_at_a_time(session: aiohttp.ClientSession, url: str, times: int) -> list[float]:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        async with session.post(f"{url}/v1/chat/completions", json=body(1)) as response:
            await response.read()
        seconds.append(time.perf_counter() - began)
    return seconds


class Read(NamedTuple):
    """One stream read as bytes, and looked into only when it was over, so that the client is not what is measured."""

    whole: bool
    first: float
    last: float
    """When its first and its last bytes came, by time.perf_counter."""


async def all_at_once(
    session: aiohttp.ClientSession, url: str, streams: int, tokens: int, pause_ms: float = 0
) -> list[Read]:
    """So many streams, begun together."""

    async def read() -> Read:
        first, pieces = 0.0, []
        async with session.post(f"{url}/v1/chat/completions", json=body(tokens, pause_ms, stream=True)) as response:
            async for piece in response.content.iter_any():
                first = first or time.perf_counter()
                pieces.append(piece)
        last = time.perf_counter()
        said = [int(number) for number in re.findall(rb'"content": ?" t(\d+)"', b"".join(pieces))]
        return Read(said == list(range(tokens)), first, last)

    return await asyncio.gather(*[read() for _ in range(streams)])


async def text_of(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        return await response.text()
