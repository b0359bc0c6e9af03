"""The embedded default: runs a task's YAML on this machine as a spot market would treat it.

Each zone has a disk of its own that is wiped when its machine is taken; machines live for times drawn from a
seed; a notice is SIGTERM to every process of the machine, the end is SIGKILL. Only the store survives. It knows
nothing of what the task does.
"""

import contextlib
import fcntl
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import yaml

from launcher.errors import RunError
from launcher.ledger import Ledger, home
from launcher.recipe import LocalConfig
from market.offers import Offer
from train.config import INTERRUPTED, REFUSED

SOURCE = Path(__file__).resolve().parent.parent
"""The folder with train/ and checkpoints/: the task's workdir."""
_SHIPPED = ("train", "checkpoints", "serving", "launcher", "market", "pyproject.toml", "data")
_MARK = "VLAUNCH_MACHINE"
"""An environment variable that every process of a machine inherits; how the machine's end finds them all."""
_LOOK_SECONDS = 0.05


class Fate(msgspec.Struct, frozen=True):
    """What the simulated market has in store for a machine."""

    life_seconds: float | None
    """From its start; None: it is left alone."""
    announced: bool


def fates(config: LocalConfig) -> Iterator[Fate]:
    """The fate of each machine in turn; the same for the same seed.

    Lives are exponential. Of every two preemptions in a row one is announced where `notice_share` is a half:
    shares are kept exactly over time, so that a short run sees both kinds.
    """
    draw = random.Random(config.seed)
    owed = draw.random()
    for _ in range(config.max_preemptions):
        life = draw.expovariate(1 / config.mean_life_seconds)
        # A machine that dies before it can start shows nothing; the market gives it a tenth of the mean life.
        owed += config.notice_share
        announced = owed >= 1
        owed -= announced
        yield Fate(max(life, config.mean_life_seconds / 10), announced)
    while True:
        yield Fate(None, announced=False)


def ship(workdir: Path) -> None:
    """What a machine needs of us, copied to `workdir`."""
    for part in _SHIPPED:
        source, target = SOURCE / part, workdir / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


class Machine:
    """A simulated machine: a disk, and the processes that run on it."""

    def __init__(self, run_id: str, offer: Offer, disk: Path) -> None:
        self.run_id = run_id
        self.offer = offer
        self.disk = disk
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def boot(self, task: dict[str, Any]) -> None:
        """An empty disk with the workdir and the mounted files on it."""
        shutil.rmtree(self.disk, ignore_errors=True)
        ship(self.disk / "sky_workdir")
        for target, local in task.get("file_mounts", {}).items():
            path = self.disk / target.removeprefix("~/")
            path.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if Path(local).is_dir() else shutil.copy
            copy(local, path)

    def start(self, task: dict[str, Any], hear: Callable[[str], None]) -> None:
        """Run setup and run, as SkyPilot would; each line of output goes to `hear`."""
        # SkyPilot runs the two as scripts of their own: an `exit 0` ends one, not both.
        script = f"cd sky_workdir && (\n{task['setup']}\n) && (\n{task['run']}\n)"
        self._process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=self.disk,
            env={**os.environ, **{key: str(value) for key, value in task["envs"].items()}, **self._environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._pump, args=(self._process, hear), daemon=True)
        self._reader.start()

    def exit_code(self) -> int | None:
        """Of the task, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def notify(self) -> None:
        """The notice: SIGTERM to every process of the machine, the shell last so that it reports their end."""
        for process in processes_of(self.run_id):
            with contextlib.suppress(psutil.NoSuchProcess):
                if self._process is None or process.pid != self._process.pid:
                    process.terminate()

    def end(self) -> None:
        """Nothing of the machine is left: not a process, not a file."""
        kill_all(self.run_id)
        if self._process is not None:
            self._process.wait()
        if self._reader is not None:
            self._reader.join(timeout=5)
        shutil.rmtree(self.disk, ignore_errors=True)

    @staticmethod
    def _pump(process: subprocess.Popen[str], hear: Callable[[str], None]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                hear(line.rstrip("\n"))

    def _environment(self) -> dict[str, str]:
        """SkyPilot's variables, and what makes this machine's disk the only one in sight."""
        temporary = self.disk / "tmp"
        temporary.mkdir(exist_ok=True)
        cache = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
        where = {"cluster_name": self.run_id, "cloud": "Local", "region": self.offer.region, "zone": self.offer.zone}
        return {
            _MARK: self.run_id,
            "HOME": str(self.disk),
            "TMPDIR": str(temporary),
            "HF_HOME": cache,
            "VLAUNCH_SCRATCH": str(temporary),
            "VLAUNCH_ENV": sys.prefix,
            "PYTHONUNBUFFERED": "1",
            "SKYPILOT_CLUSTER_INFO": json.dumps(where),
            "SKYPILOT_NUM_NODES": "1",
            "SKYPILOT_NODE_RANK": "0",
            "SKYPILOT_NODE_IPS": "127.0.0.1",
        }


def processes_of(run_id: str) -> list[psutil.Process]:
    """Every process that belongs to a machine of this run, whoever its parent is by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(_MARK) == run_id and process.pid != os.getpid():
                found.append(process)
    return found


def kill_all(run_id: str) -> int:
    """SIGKILL to all of them until none is left; how many there were."""
    killed: set[int] = set()
    while processes := processes_of(run_id):  # a process may have started another meanwhile
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                killed.add(process.pid)
        time.sleep(_LOOK_SECONDS)  # psutil's own waiting would take the exit code from whoever started it
    return len(killed)


class Budget(msgspec.Struct):
    """Dollars that a run may cost; what it has spent is kept here while it goes on."""

    usd: float
    spent: float = 0.0
    """On machines that are gone."""

    def passed(self, offer: Offer, began: float) -> bool:
        """Whether the machine at work, since time.monotonic() `began`, has used it up."""
        return self.spent + offer.usd_per_hour * (time.monotonic() - began) / 3600 >= self.usd


class LocalRun:
    """Keeps a run going over machines that are taken away, until it ends or a person stops it."""

    def __init__(
        self,
        run_id: str,
        task_text: str,
        offers: list[Offer],
        config: LocalConfig,
        folder: Path,
        ledger: Ledger,
        say: Callable[[str], None],
        machines_before: int = 0,
        budget: Budget | None = None,
    ) -> None:
        self.run_id = run_id
        self.task: dict[str, Any] = yaml.safe_load(task_text)
        self.offers = offers
        self.config = config
        self.folder = folder
        self.ledger = ledger
        self.say = say
        self.number = machines_before
        """Of the machine at work, over all launches of the run."""
        self.budget = budget
        self._stops = 0
        self._finished = False
        self._lost_in: str | None = None
        """The place that took the last machine away."""
        self._last: deque[str] = deque(maxlen=15)
        self._crashes = 0

    def stop(self, *_: Any) -> None:
        """Asked once: leave with a checkpoint. Asked again: leave now. Fit for a signal handler."""
        self._stops += 1

    def run(self) -> None:
        """Until the task has finished. Raises RunError where it failed or was stopped."""
        with locked(self.folder, self.run_id), (self.folder / "log.txt").open("a", buffering=1) as log:
            self._log = log
            if left := kill_all(self.run_id):
                self._hear(f"[local market] {left} processes of a launcher that died were ended")
            drawn = itertools.islice(fates(self.config), self.number, None)  # earlier machines had theirs
            while not self._finished:
                self._one_machine(self._choose(), next(drawn))

    def _choose(self) -> Offer:
        """The cheapest zone, but not the one that has just taken a machine away."""
        return next((offer for offer in self.offers if offer.place != self._lost_in), self.offers[0])

    def _one_machine(self, offer: Offer, fate: Fate) -> None:
        """Have a machine until it is gone."""
        self.number += 1
        self._wait(self.config.start_seconds)
        self._leave_if_asked(None)
        machine = Machine(self.run_id, offer, self.folder / "disks" / str(offer.zone))
        self.ledger.append(
            "machine_started", self.run_id, machine=self.number, place=offer.place,
            usd_per_hour=offer.usd_per_hour, price_source=f"{offer.price_source}, {offer.price_date}",
        )  # fmt: skip
        self._hear(
            f"[local market] machine {self.number} in {offer.place} at ${offer.usd_per_hour:.2f} an hour (simulated)"
        )
        began = time.monotonic()
        try:
            machine.boot(self.task)
            machine.start(self.task, self._hear)
            self._watch(machine, offer, fate, began)
        finally:
            machine.end()
            if self.budget:
                self.budget.spent += offer.usd_per_hour * (time.monotonic() - began) / 3600

    def _watch(self, machine: Machine, offer: Offer, fate: Fate, began: float) -> None:
        end = float("inf") if fate.life_seconds is None else began + fate.life_seconds
        while (code := machine.exit_code()) is None:
            self._leave_if_asked(machine)
            if self.budget and self.budget.passed(offer, began):
                self._leave(
                    machine,
                    f"budget of ${self.budget.usd:,.2f} used up",
                    f"Stopped with a checkpoint: the budget of ${self.budget.usd:,.2f} is used up. Raise run_usd in "
                    f"{home() / 'config.toml'} and go on",
                )
            if time.monotonic() >= end:
                self._preempt(machine, offer, fate)
                return
            time.sleep(_LOOK_SECONDS)
        if code in (0, INTERRUPTED):
            self._gone("finished" if code == 0 else "left with a checkpoint", code, preempted=False)
            return
        self._gone(f"the task ended with code {code}", code, preempted=False)
        self._crashes += 1
        if code == REFUSED or self._crashes > self.task["resources"]["job_recovery"]["max_restarts_on_errors"]:
            self._fail(code)

    def _preempt(self, machine: Machine, offer: Offer, fate: Fate) -> None:
        how = f"notice, {self.config.grace_seconds:g} s to leave" if fate.announced else "no notice"
        self._hear(f"[local market] {offer.place} takes machine {self.number} away ({how})")
        if fate.announced:
            self._grace(machine)
        code = machine.exit_code()
        machine.end()
        self._lost_in = offer.place
        self._gone(f"preempted ({'notice' if fate.announced else 'no notice'})", code, preempted=True)

    def _grace(self, machine: Machine) -> None:
        machine.notify()
        over = time.monotonic() + self.config.grace_seconds
        while machine.exit_code() is None and time.monotonic() < over and self._stops < 2:
            time.sleep(_LOOK_SECONDS)

    def _leave_if_asked(self, machine: Machine | None) -> None:
        """Raises RunError where a person has asked to stop."""
        if not self._stops:
            return
        self._leave(machine, "stopped by a person", "Stopped. What was committed is safe; go on")

    def _leave(self, machine: Machine | None, why: str, sentence: str) -> None:
        """Save, end the machine and raise RunError; return only where the task finished while it was told."""
        self._hear(f"[local market] stopping, {why}: saving first; Ctrl-C ends it at once")
        if machine is not None:
            self._grace(machine)
            code = machine.exit_code()
            if code == 0:
                return
            self._gone(why, code, preempted=False)
        self.ledger.append("ended", self.run_id, state="stopped", why=why)
        raise RunError(f"{sentence} with: vlaunch train --resume {self.run_id}")

    def _fail(self, code: int) -> None:
        sentence = next(
            (line.removeprefix("vlaunch: ") for line in reversed(self._last) if line.startswith("vlaunch: ")), ""
        )
        why = sentence or f"The task ended with code {code}. Its last lines:\n" + "\n".join(self._last)
        self.ledger.append("ended", self.run_id, state="failed", why=why)
        raise RunError(why)

    def _gone(self, reason: str, code: int | None, *, preempted: bool) -> None:
        """Record the end of the machine, and of the run where the task's exit code says that it is done."""
        self.ledger.append("machine_ended", self.run_id, machine=self.number, reason=reason, preempted=preempted)
        if code == 0:
            self._finished = True
            self.ledger.append("ended", self.run_id, state="finished", why="")

    def _hear(self, line: str) -> None:
        self._last.append(line)
        self._log.write(line + "\n")
        self.say(line)

    def _wait(self, seconds: float) -> None:
        over = time.monotonic() + seconds
        while time.monotonic() < over and not self._stops:
            time.sleep(min(_LOOK_SECONDS, seconds))


@contextlib.contextmanager
def locked(folder: Path, run_id: str) -> Iterator[None]:
    """One launcher a run. Raises RunError where there is another, or the folder cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"Run {run_id} is in use by another vlaunch on this machine "
                    f"({folder}); see it with: vlaunch logs {run_id} --follow"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield
    except OSError as failure:
        raise RunError(f"The folder of the run, {folder}, cannot be used: {failure.strerror}.") from failure


def alive(folder: Path) -> bool:
    """Whether a launcher is at work in a run's folder."""
    with contextlib.suppress(FileNotFoundError), (folder / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def launcher_of(folder: Path) -> int:
    """The process that is at work in a run's folder, where one is `alive`."""
    return int((folder / "lock").read_text())


def listen(stop: Callable[..., None]) -> None:
    """Ctrl-C and a plain kill both ask to stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
