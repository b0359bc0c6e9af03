"""How many may stand at the gateway's port, and how long without asking anything. aiohttp itself limits neither."""

import asyncio
import time

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

LOOK_SECONDS = 0.5

Connection = RequestHandler


class Door:
    """Looks over the connections of a server now and then."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self.silent_since: dict[Connection, float] = {}
        """Connections that have not asked anything yet."""
        self.asked: set[Connection] = set()

    def note(self, connection: Connection) -> None:
        """It has sent the head of a request."""
        self.asked.add(connection)

    async def watch(self, server: web.Server) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look(server.connections, time.monotonic())

    def look(self, connections: list[Connection], now: float) -> None:
        """Close what has been silent for too long, and the silent beyond the limit, longest first."""
        self.asked.intersection_update(connections)
        silent = (connection for connection in connections if connection not in self.asked)
        self.silent_since = {connection: self.silent_since.get(connection, now) for connection in silent}
        oldest_first = sorted(self.silent_since, key=self.silent_since.__getitem__)
        beyond = max(0, len(connections) - self.limit)
        for place, connection in enumerate(oldest_first):
            if place < beyond or now - self.silent_since[connection] > self.seconds:
                connection.force_close()
