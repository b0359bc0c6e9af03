"""Which worker answers a request: workers by model, who is free, who waits, in what order. Knows no network.

An example, two workers of one slot each, keys A and B:
    A1 -> first worker, A2 -> second worker, A3 and A4 wait, B1 waits
    a slot is free -> A3; the next -> B1 (keys take turns), then A4
    the second worker is lost -> what it was answering goes before all who wait
"""

import asyncio
import collections
from collections.abc import Callable, Iterable

from serving.errors import ApiError, no_worker_ready, overloaded

FAILURES_TO_OPEN = 3
"""In a row, after which a worker is left alone for a while."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
REMEMBERED_SESSIONS = 20_000


class Member:
    """A connected worker as the pool sees it."""

    def __init__(self, name: str, tenant: str, models: Iterable[str], slots: int) -> None:
        self.name = name
        self.tenant = tenant
        self.models = tuple(models)
        self.slots = slots
        self.healthy = False
        """As its last heartbeat said."""
        self.leaving = False
        self.gone = False
        self.in_flight = 0
        self.in_flight_elsewhere = 0
        """From other gateways, as of its last heartbeat."""
        self.waiting = 0
        self.tokens_per_second = 0.0
        self.failures = 0
        """In a row."""
        self.failed_at = float("-inf")
        self.answering = False
        """It has said something since it last failed."""
        self.paused_until = 0.0
        self.suspect_until = 0.0
        """It has just failed: others are asked first, though it has the fewest requests now."""

    @property
    def load(self) -> int:
        return self.in_flight + self.in_flight_elsewhere

    def ready(self, now: float) -> bool:
        """Whether it takes requests at all. After a pause one request tries it, and others once that has a token."""
        if self.gone or self.leaving or not self.healthy:
            return False
        if self.failures >= FAILURES_TO_OPEN:
            return now >= self.paused_until and (self.answering or self.in_flight == 0)
        return True

    def free(self, now: float) -> bool:
        return self.load < self.slots and self.ready(now)

    def failed(self, now: float, begun_at: float) -> None:
        """A request that was begun at `begun_at` did not get on. All that were under way when a machine failed are one
        failure of it."""
        self.suspect_until = now + FIRST_PAUSE_SECONDS
        if begun_at <= self.failed_at:
            return
        self.failed_at, self.answering = now, False
        self.failures += 1
        if self.failures >= FAILURES_TO_OPEN:
            pause = FIRST_PAUSE_SECONDS * 2 ** (self.failures - FAILURES_TO_OPEN)
            self.paused_until = now + min(pause, LONGEST_PAUSE_SECONDS)

    def succeeded(self) -> None:
        """An answer of it is whole."""
        self.failures = 0
        self.paused_until = self.suspect_until = 0.0


class Waiter:
    """A request that waits for a worker."""

    def __init__(self, key: str, session: int, avoid: set[Member]) -> None:
        self.key = key
        self.session = session
        self.avoid = avoid
        self.in_line = True
        self.place: asyncio.Future[Member] = asyncio.get_running_loop().create_future()


class Pool:
    """All workers of one model, and who waits for them."""

    def __init__(
        self, model: str, tenant: str, clock: Callable[[], float], limit: int, release: Callable[[Member], None]
    ) -> None:
        self.model = model
        self.tenant = tenant
        self.clock = clock
        self.limit = limit
        self.release = release
        self.members: list[Member] = []
        self.moved: collections.deque[Waiter] = collections.deque()
        """Half-said answers; they go first."""
        self.waiting: collections.OrderedDict[str, collections.deque[Waiter]] = collections.OrderedDict()
        self.waiting_count = 0
        self.sessions: collections.OrderedDict[int, Member] = collections.OrderedDict()

    def any_ready(self) -> bool:
        now = self.clock()
        return any(member.ready(now) for member in self.members)

    def choose(self, session: int, avoid: set[Member]) -> Member | None:
        """The least loaded free worker; among equals the one that had this session. Avoided ones only if alone."""
        now = self.clock()
        free = [member for member in self.members if member.free(now)]
        free = [member for member in free if member not in avoid] or free
        free = [member for member in free if now >= member.suspect_until] or free
        if not free:
            return None
        least = min(member.load for member in free)
        equals = [member for member in free if member.load == least]
        known = self.sessions.get(session) if session else None
        chosen = known if known in equals and known is not None else min(equals, key=lambda member: member.failures)
        if session:
            self.sessions[session] = chosen
            self.sessions.move_to_end(session)
            if len(self.sessions) > REMEMBERED_SESSIONS:
                self.sessions.popitem(last=False)
        # Equals take turns: the chosen one goes to the end.
        self.members.remove(chosen)
        self.members.append(chosen)
        return chosen

    async def take(self, key: str, session: int, seconds: float, *, moved: bool, avoid: set[Member]) -> Member:
        """A worker with a slot, counted as in flight; wait in line for one. ApiError where there is none in time."""
        if moved or not self.waiting_count:
            chosen = self.choose(session, avoid)
            if chosen is not None:
                chosen.in_flight += 1
                return chosen
        if not moved and self.waiting_count >= self.limit:
            raise overloaded(self.model, 1.0)
        waiter = Waiter(key, session, avoid)
        if moved:
            self.moved.append(waiter)
        else:
            self.waiting.setdefault(key, collections.deque()).append(waiter)
            self.waiting_count += 1
        try:
            async with asyncio.timeout(seconds):
                return await waiter.place
        except BaseException as ended:
            # Timed out, or its client went away; a slot may have come in the very same moment.
            if waiter.place.done() and not waiter.place.cancelled():
                self.release(waiter.place.result())
            self._leave_line(waiter, moved)
            if isinstance(ended, TimeoutError):
                raise self._none_in_time(seconds) from None
            raise

    def _none_in_time(self, seconds: float) -> ApiError:
        return overloaded(self.model, seconds) if self.any_ready() else no_worker_ready(self.model)

    def _leave_line(self, waiter: Waiter, moved: bool) -> None:
        if not waiter.in_line:
            return
        if moved:
            self.moved.remove(waiter)
            return
        line = self.waiting[waiter.key]
        line.remove(waiter)
        self.waiting_count -= 1
        if not line:
            del self.waiting[waiter.key]

    def pump(self) -> None:
        """Give free slots to those who wait: moved answers first, then each key in turn."""
        while self.moved or self.waiting:
            if self.moved:
                waiter = self.moved[0]
            else:
                waiter = next(iter(self.waiting.values()))[0]
            chosen = self.choose(waiter.session, waiter.avoid)
            if chosen is None:
                return
            self._next()
            if not waiter.place.done():
                chosen.in_flight += 1
                waiter.place.set_result(chosen)

    def _next(self) -> None:
        """Take the first waiter out of line; its key goes behind the others."""
        if self.moved:
            self.moved.popleft().in_line = False
            return
        key, line = next(iter(self.waiting.items()))
        line.popleft().in_line = False
        self.waiting_count -= 1
        if line:
            self.waiting.move_to_end(key)
        else:
            del self.waiting[key]


class Registry:
    """Who serves what: soft state, rebuilt from workers' connections."""

    def __init__(self, clock: Callable[[], float], queue_limit: int) -> None:
        self.clock = clock
        self.queue_limit = queue_limit
        self.pools: dict[str, Pool] = {}
        self.members: list[Member] = []

    def owner(self, model: str) -> str | None:
        """The tenant whose workers serve `model` now; None where there are none."""
        pool = self.pools.get(model)
        return pool.tenant if pool is not None and pool.members else None

    def join(self, member: Member) -> None:
        self.members.append(member)
        for model in member.models:
            pool = self.pools.get(model)
            if pool is None:
                pool = Pool(model, member.tenant, self.clock, self.queue_limit, self.release)
                self.pools[model] = pool
            pool.tenant = member.tenant
            pool.members.append(member)
        self.pump(member)

    def leave(self, member: Member) -> None:
        member.gone = True
        self.members.remove(member)
        for model in member.models:
            pool = self.pools[model]
            pool.members.remove(member)
            for session in [known for known, served in pool.sessions.items() if served is member]:
                del pool.sessions[session]

    def release(self, member: Member) -> None:
        member.in_flight -= 1
        if not member.gone:
            self.pump(member)

    def pump(self, member: Member) -> None:
        """Something about `member` changed for the better: give its slots to those who wait."""
        for model in member.models:
            self.pools[model].pump()
