"""Which worker answers, and who waits how long for one. A clock of our own; asyncio's queue is the real one."""

import asyncio

import pytest

from serving.errors import ApiError
from serving.pool import FAILURES_TO_OPEN, Member, Pool, Registry

NOBODY: set[Member] = set()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def member(name: str, slots: int = 2) -> Member:
    made = Member(name, "", ["m"], slots)
    made.healthy = True
    return made


def pool_of(*members: Member, limit: int = 10, clock: Clock | None = None) -> tuple[Registry, Pool]:
    registry = Registry(clock or Clock(), limit)
    for each in members:
        registry.join(each)
    return registry, registry.pools["m"]


async def take(pool: Pool, key: str = "k", session: int = 0, seconds: float = 60, *, moved: bool = False) -> Member:
    return await pool.take(key, session, seconds, moved=moved, avoid=NOBODY)


async def let_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_least_loaded_takes_it_and_equals_take_turns() -> None:
    async def story() -> list[str]:
        _, pool = pool_of(member("a"), member("b"))
        return [(await take(pool)).name for _ in range(4)]

    assert asyncio.run(story()) == ["a", "b", "a", "b"]


def test_requests_of_other_gateways_count() -> None:
    async def story() -> str:
        busy, idle = member("busy", 9), member("idle", 9)
        busy.in_flight_elsewhere = 3
        _, pool = pool_of(busy, idle)
        return "".join([(await take(pool)).name[0] for _ in range(4)])

    assert asyncio.run(story()).count("i") >= 3


def test_a_session_stays_where_it_was_unless_that_costs() -> None:
    async def story() -> list[str]:
        registry, pool = pool_of(member("a"), member("b"))
        first = await take(pool, session=7)
        registry.release(first)
        again = await take(pool, session=7)
        elsewhere = await take(pool, session=7)
        return [first.name, again.name, elsewhere.name]

    assert asyncio.run(story()) == ["a", "a", "b"]


def test_keys_take_turns_and_moved_answers_go_first() -> None:
    async def story() -> list[str]:
        registry, pool = pool_of(member("a", slots=1))
        order: list[str] = []

        async def ask(key: str, *, moved: bool = False) -> None:
            taken = await take(pool, key, moved=moved)
            order.append(key)
            registry.release(taken)

        held = await take(pool)
        waiting = []
        for key in ("A1", "A2", "B1"):
            waiting.append(asyncio.ensure_future(ask(key[0])))
            await let_run()
        waiting.append(asyncio.ensure_future(ask("moved", moved=True)))
        await let_run()
        registry.release(held)
        await asyncio.gather(*waiting)
        return order

    assert asyncio.run(story()) == ["moved", "A", "B", "A"]


def test_the_line_is_bounded_and_its_patience_ends() -> None:
    async def story() -> tuple[str, str, int]:
        _, pool = pool_of(member("a", slots=1), limit=1)
        await take(pool)
        first = asyncio.ensure_future(take(pool, seconds=0.01))
        await let_run()
        with pytest.raises(ApiError) as full:
            await take(pool)
        with pytest.raises(ApiError) as late:
            await first
        return full.value.code, late.value.code, pool.waiting_count

    assert asyncio.run(story()) == ("overloaded", "overloaded", 0)


def test_nobody_ready_is_not_called_overloaded() -> None:
    async def story() -> str:
        registry, pool = pool_of(gone := member("a"))
        registry.leave(gone)
        with pytest.raises(ApiError) as failure:
            await take(pool, seconds=0.01)
        return failure.value.code

    assert asyncio.run(story()) == "no_worker_ready"


def test_a_client_that_leaves_the_line_costs_no_slot() -> None:
    async def story() -> int:
        registry, pool = pool_of(only := member("a", slots=1))
        held = await take(pool)
        leaving = asyncio.ensure_future(take(pool))
        await let_run()
        registry.release(held)  # the slot is the leaver's now, who goes before it knows
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        return only.in_flight

    assert asyncio.run(story()) == 0


def test_a_worker_that_fails_is_paused_longer_each_time_and_tried_with_one_request() -> None:
    clock = Clock()
    broken = member("broken")
    for moment in range(FAILURES_TO_OPEN):
        clock.now = moment / 10
        broken.failed(clock(), clock())
    assert not broken.ready(clock.now + 0.99)
    clock.now += 1.0
    assert broken.ready(clock())
    broken.in_flight = 1
    assert not broken.ready(clock()), "one request at a time tries it"
    broken.failed(clock(), clock())
    broken.in_flight = 0
    assert not broken.ready(clock.now + 1.99)
    clock.now += 2.0
    broken.in_flight = 1
    broken.answering = True
    assert broken.ready(clock()), "the request that tried it has a token"
    broken.succeeded()
    assert broken.failures == 0


def test_all_that_was_under_way_when_a_machine_failed_is_one_failure() -> None:
    machine = member("machine")
    for _ in range(10):
        machine.failed(now=5.0, begun_at=1.0)
    assert machine.failures == 1
    machine.failed(now=6.0, begun_at=5.5)
    assert machine.failures == 2


def test_a_worker_that_has_just_failed_is_asked_last() -> None:
    async def story() -> list[str]:
        clock = Clock()
        failing, busy = member("failing", 9), member("busy", 9)
        busy.in_flight = 3
        _, pool = pool_of(failing, busy, clock=clock)
        failing.failed(clock(), clock())
        first = await take(pool)
        clock.now = 1.0
        return [first.name, (await take(pool)).name]

    assert asyncio.run(story()) == ["busy", "failing"]


def test_a_worker_that_failed_this_request_is_asked_again_only_when_alone() -> None:
    async def story() -> tuple[str, str]:
        first, second = member("a"), member("b")
        registry, pool = pool_of(first, second)
        other = await pool.take("k", 0, 1, moved=False, avoid={first})
        registry.leave(second)
        alone = await pool.take("k", 0, 1, moved=False, avoid={first})
        return other.name, alone.name

    assert asyncio.run(story()) == ("b", "a")
