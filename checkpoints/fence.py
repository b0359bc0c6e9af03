"""Stops an attempt that is no longer wanted: a thread looks for a newer attempt, and where the training loop does not
notice in time (a long step, a save that hangs) it ends the process.
"""

import os
import random
import threading
from collections.abc import Callable

from checkpoints import run
from checkpoints.stores import Store, StoreError


class Fence:
    """Looks every `every_seconds`; within twice that and `grace_seconds` the process is gone, under a minute."""

    def __init__(
        self,
        store: Store,
        attempt: int,
        *,
        exit_code: int,
        say: Callable[[str], None],
        every_seconds: float = 18.0,
        grace_seconds: float = 15.0,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self.superseded_by: int | None = None
        """The number of the attempt that has taken over the run, once it is known."""
        self.asked_to_leave = False
        """Whether whoever pays has asked this attempt to save and leave."""
        self._store = store
        self._attempt = attempt
        self._exit_code = exit_code
        self._say = say
        self._every_seconds = every_seconds
        self._grace_seconds = grace_seconds
        self._leave = leave
        # Of its own: a thread that draws from Python's one generator would change what the training draws from it.
        self._random = random.Random()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fence", daemon=True)

    def __enter__(self) -> "Fence":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _watch(self) -> None:
        # The ranks of a large machine do not ask all at once.
        while not self._done.wait(self._every_seconds * self._random.uniform(0.8, 1.0)):
            try:
                self.superseded_by = run.newer(self._store, self._attempt)
                self.asked_to_leave = run.asked_to_leave(self._store, self._attempt)
            except StoreError:
                continue  # a store that cannot be read now is asked again; nothing can be committed to it meanwhile
            if self.superseded_by is not None:
                break
        else:
            return
        if not self._done.wait(self._grace_seconds):
            self._say(
                f"attempt {self.superseded_by} has taken over this run, and a step or a save here does not end; "
                f"the process is ended after {self._grace_seconds:g} s"
            )
            self._leave(self._exit_code)
