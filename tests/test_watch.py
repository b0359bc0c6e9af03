"""The live view on a real terminal: a pseudo-terminal, and pyte as the screen that a person would see."""

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

from tests.ledgers import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A run that began 100 minutes ago by the records, with an hour left by its trainer."""
    home = Home(tmp_path / "home")
    home.run("going", -100)
    home.machine("going", 1, -100, None, 12.0)
    home.event("going", -95, 1, "training_started", step=0, steps=100)
    metrics = home.store / "going" / "metrics" / "0001-000001.jsonl"
    metrics.parent.mkdir(parents=True)
    lines = [
        {"at": "2026-11-23T12:00:00Z", "attempt": 1, "step": step, "steps": 100, "loss": 3.0 - step / 50,
         "tokens_per_second": 4321.0, "seconds_left": 3600.0}
        for step in range(1, 51)
    ]  # fmt: skip
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return home


@contextlib.contextmanager
def launcher_at_work(home: Home, run: str) -> Iterator[None]:
    """What a launcher holds while it works on a run."""
    folder = home.folder / "runs" / run
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def screens(home: Home, columns: int, seen: str, act: Callable[[], None]) -> list[str]:
    """The screen once it shows `seen`, and after `act` has been called and the program has ended."""
    screen = pyte.Screen(columns, 24)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    watching = subprocess.Popen(
        [sys.executable, "-m", "launcher", "status", "--watch"],
        stdin=theirs, stdout=theirs, stderr=theirs,
        env={**environment, "VLAUNCH_HOME": str(home.folder), "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    shown: list[str] = []
    try:
        while True:
            try:
                stream.feed(os.read(ours, 65536))
            except OSError:  # the other end is closed: it has ended
                break
            if not shown and any(seen in line for line in screen.display):
                shown.append("\n".join(line.rstrip() for line in screen.display))
                act()
    finally:
        watching.kill()
        assert watching.wait() in (0, -9)
        os.close(ours)
    return [*shown, "\n".join(line.rstrip() for line in screen.display)]


@pytest.mark.parametrize("columns", [60, 100, 160])
def test_the_live_view_fits_the_terminal_and_ends_with_the_run(home: Home, columns: int) -> None:
    with contextlib.ExitStack() as held:
        held.enter_context(launcher_at_work(home, "going"))

        def end() -> None:
            facts = {"machine": 1, "reason": "finished", "preempted": False}
            home.record("going", "machine_ended", 0, **facts)
            home.record("going", "ended", 0, state="finished", why="")
            held.close()

        going, over = screens(home, columns, "tokens/s", end)
    words = " ".join(going.split())
    for said in ("loss █", "▁ 2.0000", "1.0 hours left", "at $12.00 an hour", "goodput 100%"):
        assert said in words
    assert "finished" in over
    assert "tokens/s" not in over
