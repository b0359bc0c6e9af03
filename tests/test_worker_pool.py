"""The pool of worker processes: what it gives where one dies or hangs, and what is left when its parent is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

from conversations.pool import BYTES_A_WORKER, Lost, Pool, workers_for

BATCHES = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]


def doubling(bad: int, harm: Callable[[], object]) -> Callable[[], Callable[[int], int]]:
    def apply(item: int) -> int:
        if item == bad:
            harm()
        return 2 * item

    return lambda: apply


def results(harm: Callable[[], object], seconds_an_item: float = 60.0) -> list[list[int | str]]:
    pool: Pool[int, int] = Pool(doubling(7, harm), 2, seconds_an_item=seconds_an_item)
    return [[each.why if isinstance(each, Lost) else each for each in batch] for batch in pool.map(iter(BATCHES))]


def test_a_worker_that_dies_costs_the_one_item_that_did_it() -> None:
    lost = "the process that worked on it died"
    assert results(lambda: os.kill(os.getpid(), signal.SIGKILL)) == [[2, 4, 6], [8, 10], [12, lost, 16, 18]]


def test_a_worker_that_hangs_costs_the_one_item_that_did_it() -> None:
    found = results(lambda: time.sleep(60), seconds_an_item=2.0)
    assert found[:2] == [[2, 4, 6], [8, 10]]
    assert [isinstance(each, str) for each in found[2]] == [False, True, False, False]


def test_workers_end_when_their_parent_is_killed() -> None:
    program = (
        "import time\nfrom conversations.pool import Pool\n"
        "pool = Pool(lambda: lambda item: item, 3)\n"
        "for _ in pool.map(iter([[number] for number in range(100)])):\n"
        "    print('one', flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"one\n"
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 3
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive, gone


def test_an_input_gets_as_many_workers_as_it_is_worth() -> None:
    cores = len(os.sched_getaffinity(0))
    assert workers_for(0) == workers_for(BYTES_A_WORKER - 1) == 1
    assert workers_for(BYTES_A_WORKER) == min(2, cores)
    assert workers_for(1000 * cores * BYTES_A_WORKER) == cores
