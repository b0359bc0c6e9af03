"""Work on all cores, in order, with bounded memory: batches go to worker processes one at a time, and a worker that
dies or hangs costs the one record that did it.
"""

import contextlib
import gc
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 3
"""Batches a worker that are read before the oldest has come back."""


BYTES_A_WORKER = 4_000_000
"""Of the input: for less, what a worker would learn again (a tokenizer's words) costs more than it gains."""


def workers_for(input_bytes: int) -> int:
    """How many worker processes an input is worth, at most one a core."""
    return min(len(os.sched_getaffinity(0)), 1 + input_bytes // BYTES_A_WORKER)


class Lost:
    """In place of a result: the process that worked on the item died, or took too long."""

    def __init__(self, why: str) -> None:
        self.why = why


class Pool(Generic[Item, Result]):
    """`work` makes, in the worker, the function that is applied to each item."""

    def __init__(
        self,
        work: Callable[[], Callable[[Item], Result]],
        workers: int,
        *,
        seconds_an_item: float = 60.0,
    ) -> None:
        self._work = work
        self._workers = workers
        self._seconds_an_item = seconds_an_item

    def map(self, batches: Iterable[list[Item]]) -> Iterator[list[Result | Lost]]:
        """The results of each batch, in the order of the batches. A single batch is done in this process' own
        worker too, so that what kills a worker never kills the command.
        """
        workers: list[_Worker[Item, Result]] = []
        try:
            yield from self._map(iter(batches), workers)
        finally:
            for worker in workers:
                worker.stop()

    def _map(
        self, batches: Iterator[list[Item]], workers: "list[_Worker[Item, Result]]"
    ) -> Iterator[list[Result | Lost]]:
        waiting: deque[_Batch[Item, Result]] = deque()
        more = True
        while more or waiting:
            while more and len(waiting) < AHEAD * self._workers:
                batch = next(batches, None)
                more = batch is not None
                if batch is not None:
                    waiting.append(_Batch(batch))
                    self._hand_out(waiting, workers)
            while waiting and waiting[0].done:
                yield waiting.popleft().results
            if waiting:
                self._collect(waiting, workers)

    def _hand_out(self, waiting: "deque[_Batch[Item, Result]]", workers: "list[_Worker[Item, Result]]") -> None:
        for batch in waiting:
            if batch.done or batch.taken:
                continue
            worker = next((each for each in workers if each.batch is None), None)
            if worker is None:
                if len(workers) >= self._workers:
                    return
                worker = _Worker(self._work, [each.connection for each in workers])
                workers.append(worker)
            worker.take(batch)

    def _collect(self, waiting: "deque[_Batch[Item, Result]]", workers: "list[_Worker[Item, Result]]") -> None:
        """Wait until a worker has something, died, or is late."""
        self._hand_out(waiting, workers)
        busy = {worker.connection: worker for worker in workers if worker.batch is not None}
        ready = wait(list(busy), timeout=1.0)
        for connection in ready:
            worker = busy[connection]  # type: ignore[index]
            if not worker.receive():
                self._bury(worker, workers, "the process that worked on it died")
        for worker in list(busy.values()):
            if worker in workers and worker.batch is not None and worker.silent_seconds() > self._seconds_an_item:
                self._bury(worker, workers, f"it took more than {self._seconds_an_item:.0f} seconds")
        self._hand_out(waiting, workers)

    @staticmethod
    def _bury(worker: "_Worker[Item, Result]", workers: "list[_Worker[Item, Result]]", why: str) -> None:
        """The first time, its batch is begun again by a worker that tells of each item, which shows the culprit."""
        batch = worker.batch
        workers.remove(worker)
        worker.stop()
        if batch is None:
            return
        if batch.careful:
            batch.results.append(Lost(why))
        batch.careful = True
        batch.taken = False


class _Batch(Generic[Item, Result]):
    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.results: list[Result | Lost] = []
        """In the order of the items; the next is the one that a worker is at."""
        self.taken = False
        self.careful = False

    @property
    def done(self) -> bool:
        return len(self.results) == len(self.items)


class _Worker(Generic[Item, Result]):
    def __init__(self, work: Callable[[], Callable[[Item], Result]], others: list[Connection]) -> None:
        # fork: nothing is imported again, which takes longer than a small file does
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        not_its_own = [*others, self.connection]
        self._process = context.Process(target=_serve, args=(work, theirs, not_its_own), daemon=True)
        self._process.start()
        theirs.close()
        self.batch: _Batch[Item, Result] | None = None
        self._heard = time.monotonic()

    def take(self, batch: _Batch[Item, Result]) -> None:
        self.batch = batch
        batch.taken = True
        self._heard = time.monotonic()
        with contextlib.suppress(OSError):  # it died; the next receive says so
            self.connection.send((batch.items[len(batch.results) :], 0 if batch.careful else SECONDS_BETWEEN))

    def receive(self) -> bool:
        """Take in what the worker has done; False where it is dead."""
        assert self.batch is not None
        try:
            self.batch.results += self.connection.recv()
        except (EOFError, OSError):
            return False
        self._heard = time.monotonic()
        if self.batch.done:
            self.batch = None
        return True

    def silent_seconds(self) -> float:
        return time.monotonic() - self._heard

    def stop(self) -> None:
        self.connection.close()
        self._process.join(timeout=0.5 if self.batch is None else 0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


SECONDS_BETWEEN = 0.5
"""How often a worker says how far it is, or after an item that takes longer."""


def _serve(work: Callable[[], Callable[[Item], Result]], connection: Connection, not_its_own: list[Connection]) -> None:
    """What a worker process runs until its parent closes the pipe, or is gone."""
    for each in not_its_own:  # the parent's ends, inherited: while one is open nobody notices that the parent is gone
        each.close()
    gc.freeze()  # what the parent had is not gone through again, and stays in memory that is shared with it
    apply = work()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            done: list[Result] = []
            said = time.monotonic()
            items, seconds_between = connection.recv()
            for item in items:
                done.append(apply(item))
                if time.monotonic() - said >= seconds_between:
                    connection.send(done)
                    done = []
                    said = time.monotonic()
            connection.send(done)
