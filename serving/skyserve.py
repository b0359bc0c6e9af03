"""Tells SkyServe of the requests a gateway gets, so that its autoscaling sees them: one look at the service's own
endpoint for each. SkyServe counts what comes there, and passes a look on to a replica's readiness probe.
"""

import asyncio
from collections.abc import Sequence

import aiohttp

from serving.asked import Asked
from serving.config import ApiKey, SkyServeEndpoint

LOOK = "/ready"
_AT_ONCE = 64
"""Looks under way; beyond that SkyServe has seen enough, and is slow."""
_ANSWER_SECONDS = 5.0


class Counting:
    """A guard of the gateway's that refuses nobody."""

    def __init__(self, endpoints: Sequence[SkyServeEndpoint]) -> None:
        self.urls = {endpoint.model: endpoint.url.rstrip("/") + LOOK for endpoint in endpoints}
        self._session: aiohttp.ClientSession | None = None
        self._looks: set[asyncio.Task[None]] = set()

    async def guard(self, asked: Asked, key: ApiKey) -> None:
        url = self.urls.get(asked.model)
        if url is not None and len(self._looks) < _AT_ONCE:
            look = asyncio.create_task(self._look(url))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    async def close(self) -> None:
        for look in self._looks:
            look.cancel()
        if self._session is not None:
            await self._session.close()

    async def _look(self, url: str) -> None:
        """What it answers is of no interest; it has counted."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS))
        try:
            async with self._session.get(url) as response:
                await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return
