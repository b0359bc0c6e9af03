"""The gateway beside others, and under murder: `python benchmarks/gateway.py [--only PART]... [--kills 200]`.

Engines are dummies that count, so a token lost or doubled shows. Everything is measured in one run on one machine and
compared as ratios. Parts: speed, crowd, kill, stall, gateways, return; all of them take about six minutes.
"""

import argparse
import asyncio
import contextlib
import json
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peers
from benchmarks.streams import (
    Seen,
    all_at_once,
    one_at_a_time,
    opened,
    stream,
    text_of,
    wait_until_it_answers,
)
from tests.servers import free_port
from tests.serving_parts import Parts, parts, wait_for_workers

PARTS = ("speed", "crowd", "kill", "stall", "gateways", "return")
MACHINES = 4
ROUNDS = 5
ASKED_AT_ONCE = 64
CROWD = 1000


@contextlib.asynccontextmanager
async def beside_peers(serving: Parts) -> AsyncIterator[dict[str, str]]:
    """Two engines; by name the address of the first, and of three processes in front of both, ours among them."""
    peers.install()
    engines = [serving.engine(f"engine-{number}") for number in range(2)]
    gateway = serving.gateway("vlaunch")
    for number, engine in enumerate(engines):
        serving.worker(f"worker-{number}", (gateway,), engine, slots=CROWD)
    router, balancer, controller = free_port(), free_port(), free_port()
    runner = await peers.Controller(engines).start(controller)
    serving.start("vllm-router", peers.vllm_router(router, free_port(), engines))
    serving.start("skyserve", peers.skyserve_balancer(balancer, f"http://127.0.0.1:{controller}"))
    yield {
        "direct": engines[0],
        "vlaunch": gateway,
        "vllm-router": f"http://127.0.0.1:{router}",
        "skyserve": f"http://127.0.0.1:{balancer}",
    }
    await runner.cleanup()


def core_seconds(serving: Parts, *names: str) -> float:
    """What these processes have used of a core so far."""
    return sum(sum(psutil.Process(serving.processes[name].pid).cpu_times()[:2]) for name in names)


async def speed(serving: Parts) -> bool:
    """Added latency of one request at a time, and tokens a second of many streams without pauses. The time of a core is
    that of what stands between client and engine, our workers included; it does not hang on who else is at work."""
    latency, speeds = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    between = {
        "vlaunch": ("vlaunch", "worker-0", "worker-1"),
        "vllm-router": ("vllm-router",),
        "skyserve": ("skyserve",),
    }
    used = defaultdict[str, float](float)
    async with beside_peers(serving) as urls, opened() as session:
        for url in urls.values():
            await wait_until_it_answers(session, url)
        for _ in range(ROUNDS):
            for name, url in urls.items():
                latency[name] += await one_at_a_time(session, url, 60)
                began, before = time.perf_counter(), core_seconds(serving, *between.get(name, ()))
                read = await all_at_once(session, url, ASKED_AT_ONCE, 200)
                speeds[name].append(ASKED_AT_ONCE * 200 / (time.perf_counter() - began))
                used[name] += core_seconds(serving, *between.get(name, ())) - before
                assert all(one.whole for one in read), f"{name} lost tokens"
    median = {name: statistics.median(values) for name, values in latency.items()}
    rate = {name: statistics.median(values) for name, values in speeds.items()}
    for name in urls:
        print(
            f"  {name:12s} median {median[name] * 1000:6.2f} ms, {rate[name]:7.0f} tokens/s at {ASKED_AT_ONCE}, "
            f"{used[name] / (ROUNDS * ASKED_AT_ONCE * 200) * 1000:.4f} seconds of a core for 1,000 tokens"
        )
    added = (median["vlaunch"] - median["direct"]) * 1000
    sky, vllm = rate["vlaunch"] / rate["skyserve"], rate["vlaunch"] / rate["vllm-router"]
    print(f"  added {added:.2f} ms (at most 1.5); {sky:.2f} times skyserve (2), {vllm:.2f} times vllm-router (0.8)")
    return added <= 1.5 and sky >= 2 and vllm >= 0.8


async def crowd(serving: Parts) -> bool:
    """A thousand streams of people reading: what each process in front takes for a thousand tokens."""
    tokens, pause_ms = 40, 250
    seconds_per_thousand, held = {}, True
    async with beside_peers(serving) as urls, opened() as session:
        for name in ("vlaunch", "vllm-router", "skyserve"):
            await wait_until_it_answers(session, urls[name])
            before = core_seconds(serving, name)
            read = await all_at_once(session, urls[name], CROWD, tokens, pause_ms)
            cpu = core_seconds(serving, name) - before
            pace = (tokens - 1) * pause_ms / 1000 / statistics.median(one.last - one.first for one in read)
            whole = sum(one.whole for one in read)
            seconds_per_thousand[name] = cpu / (CROWD * tokens) * 1000
            print(
                f"  {name:12s} {whole} of {CROWD} streams whole, {pace:.2f} of their pace, "
                f"{seconds_per_thousand[name]:.4f} seconds of a core for 1,000 tokens, "
                f"{psutil.Process(serving.processes[name].pid).memory_info().rss / 1e6:.0f} MB"
            )
            held = held and (name != "vlaunch" or (whole == CROWD and pace >= 0.9))
    ours = seconds_per_thousand["vlaunch"]
    print(f"  one core would carry {1000 / ours / CROWD:.0f} tokens a second for each of {CROWD} streams (at least 4)")
    return held and 1000 / ours / CROWD >= 1000 / pause_ms


class Machines:
    """Workers with an engine each, killed and started again."""

    def __init__(self, serving: Parts, gateways: tuple[str, ...]) -> None:
        self.serving = serving
        self.gateways = gateways
        self.engines = {number: serving.engine(f"engine-{number}") for number in range(MACHINES)}
        for number in range(MACHINES):
            self.start_worker(number)

    def start_worker(self, number: int) -> None:
        self.serving.worker(f"worker-{number}", self.gateways, self.engines[number], slots=CROWD)

    def kill(self, number: int) -> None:
        """The whole machine, and a new one at once in its place."""
        for part in (f"worker-{number}", f"engine-{number}"):
            self.serving.processes[part].kill()
        for part in (f"worker-{number}", f"engine-{number}"):
            self.serving.processes[part].wait()
        port = self.engines[number].rpartition(":")[2]
        self.serving.start(f"engine-{number}", [sys.executable, "benchmarks/dummy_engine.py", port])
        self.start_worker(number)


async def under_load(
    gateway: str, session: aiohttp.ClientSession, streams: int, stop: asyncio.Event, tokens: int = 100
) -> list[Seen]:
    """So many clients, each asking again as soon as it has its answer, until told to stop."""

    async def ask_again() -> list[Seen]:
        seen = []
        while not stop.is_set():
            seen.append(await stream(session, gateway, tokens, 20))
        return seen

    return [one for many in await asyncio.gather(*[ask_again() for _ in range(streams)]) for one in many]


def judge(seen: list[Seen], audit: Path, what: str, times: int) -> bool:
    """Every stream whole; the gaps of those that moved, as their clients saw them."""
    moved = {line["request"]: line["failovers"] for line in map(json.loads, audit.read_text().splitlines())}
    gaps = [gap for one in seen for gap in sorted(one.gaps)[len(one.gaps) - moved.get(one.id, 0) :]]
    broken = [one for one in seen if not one.whole(100)]
    for one in broken[:5]:
        print(f"  broken: {one.error or 'no error'} after {len(one.numbers)} tokens {one.numbers[-5:]}")
    median = statistics.median(gaps) * 1000 if gaps else 0.0
    late = sorted(gaps)[int(len(gaps) * 0.99)] * 1000 if gaps else 0.0
    print(
        f"  {times} {what}, {len(seen)} streams, {len(gaps)} moved, {len(broken)} broken; "
        f"gap median {median:.0f} ms (150), 99th of 100 {late:.0f} ms"
    )
    return not broken and bool(gaps) and median < 150


async def kill(serving: Parts, times: int) -> bool:
    """Machines killed with -9 under load."""
    audit = serving.folder / "audit"
    gateway = serving.gateway(audit_file=str(audit))
    machines = Machines(serving, (gateway,))
    wait_for_workers(gateway, MACHINES)
    chance, stop = random.Random(1), asyncio.Event()
    async with opened() as session:
        load = asyncio.ensure_future(under_load(gateway, session, 24, stop))
        for _ in range(times):
            await asyncio.sleep(0.3)
            await wait_for_ready(session, gateway, MACHINES - 1)
            machines.kill(chance.randrange(MACHINES))
        stop.set()
        seen = await load
    return judge(seen, audit, "machines killed", times)


async def wait_for_ready(session: aiohttp.ClientSession, gateway: str, count: int) -> None:
    while True:
        async with session.get(f"{gateway}/health") as response:
            if (await response.json())["ready_workers"].get("dummy", 0) >= count:
                return
        await asyncio.sleep(0.05)


async def stall(serving: Parts, times: int) -> bool:
    """Engines that stand still for a while under load: the gateway is told to wait no longer than 60 ms."""
    audit = serving.folder / "audit"
    gateway = serving.gateway(audit_file=str(audit), stall_seconds=0.06, first_token_seconds=0.5)
    Machines(serving, (gateway,))
    wait_for_workers(gateway, MACHINES)
    chance, stop = random.Random(2), asyncio.Event()
    async with opened() as session:
        load = asyncio.ensure_future(under_load(gateway, session, 24, stop))
        for _ in range(times):
            await asyncio.sleep(0.2)
            engine = serving.processes[f"engine-{chance.randrange(MACHINES)}"]
            engine.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.3)
            engine.send_signal(signal.SIGCONT)
        stop.set()
        seen = await load
    return judge(seen, audit, "engines stalled", times)


async def gateways(serving: Parts) -> bool:
    """One of two gateways killed and started again under load, ten times, for clients that ask once more elsewhere."""
    ports = [free_port(), free_port()]
    urls = [serving.gateway(f"gateway-{place}", port=port) for place, port in enumerate(ports)]
    Machines(serving, tuple(urls))
    for url in urls:
        wait_for_workers(url, MACHINES)
    stop, failed, asked, whole_again = asyncio.Event(), 0, 0, []
    async with opened() as session:

        async def ask_again(first: int) -> None:
            nonlocal failed, asked
            while not stop.is_set():
                asked += 1
                seen = await stream(session, urls[first], 20, 10)
                if not seen.whole(20):
                    seen = await stream(session, urls[1 - first], 20, 10)
                failed += not seen.whole(20)

        load = asyncio.gather(*[ask_again(number % 2) for number in range(24)])
        for turn in range(10):
            await asyncio.sleep(0.5)
            serving.kill(f"gateway-{turn % 2}")
            await asyncio.to_thread(serving.gateway, f"gateway-{turn % 2}", port=ports[turn % 2])
            began = time.perf_counter()
            await wait_for_ready(session, urls[turn % 2], MACHINES)
            whole_again.append(time.perf_counter() - began)
        stop.set()
        await load
    slowest = max(whole_again)
    print(
        f"  {asked} requests, {failed} failed (0); "
        f"all workers back {slowest * 1000:.0f} ms after it listens at worst (1000)"
    )
    return failed == 0 and slowest < 1.0


async def returning(serving: Parts) -> bool:
    """A worker killed and started again under load: how long until it has a request."""
    gateway = serving.gateway()
    machines = Machines(serving, (gateway,))
    wait_for_workers(gateway, MACHINES)
    stop, seconds = asyncio.Event(), []
    async with opened() as session:
        load = asyncio.ensure_future(under_load(gateway, session, 24, stop, tokens=5))
        for _ in range(5):
            await asyncio.sleep(0.5)
            serving.kill("worker-0")
            began = time.perf_counter()
            machines.start_worker(0)
            while not re.search(r'in_flight\{worker="worker-0"\} [1-9]', await text_of(session, f"{gateway}/metrics")):
                await asyncio.sleep(0.01)
            seconds.append(time.perf_counter() - began)
        stop.set()
        await load
    median = statistics.median(seconds)
    print(f"  a request {median * 1000:.0f} ms after its process is started, at worst {max(seconds) * 1000:.0f} (1000)")
    return median < 1.0


async def main(chosen: list[str], kills: int) -> int:
    told = {
        "speed": speed,
        "crowd": crowd,
        "kill": lambda serving: kill(serving, kills),
        "stall": lambda serving: stall(serving, kills),
        "gateways": gateways,
        "return": returning,
    }
    missed = []
    for name in chosen:
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as folder, parts(Path(folder)) as serving:
            if not await told[name](serving):
                missed.append(name)
    print(f"missed: {', '.join(missed)}" if missed else "all held")
    return int(bool(missed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The gateway beside others, and under murder.")
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--kills", type=int, default=200)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main(arguments.only or list(PARTS), arguments.kills)))
