"""Kills a training run again and again, and looks whether anything was lost: `python -m tests.soak --seed 7`.

Two processes of the real trainer save to a real S3 server through a proxy that fails now and then. Both are ended by
SIGKILL, half of the time at a random moment and half of the time at a chosen one: in an upload, a commit, a deletion, a
resume. After each kill every committed checkpoint must be whole and none may have been lost; a run that got to its end
must have the losses and the weights of one that nobody touched, bit for bit.
"""

import argparse
import contextlib
import itertools
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import xxhash

from checkpoints import layout
from checkpoints.blocks import read_manifest
from checkpoints.layout import Checkpoint, Manifest
from checkpoints.stores import Store, open_store
from tests import servers
from tests.fault_proxy import FaultProxy, Plan, seeded
from tests.warm_machine import Life, Machine

STEPS = 40
CHANGES = [f"train.max_steps={STEPS}", "checkpoints.every_seconds=0.2"]
FAULTS = 0.03
"""Share of the requests that fail."""
MOMENTS = {
    "attempt": ("PUT", r"/attempts/\d+$"),
    "resume": ("GET", r"/checkpoints/.*\.bin"),
    "upload": ("PUT", r"/checkpoints/.*rank-"),
    "index": ("PUT", r"/checkpoints/.*metadata\.bin"),
    "commit": ("PUT", r"/checkpoints/.*manifest\.json"),
    "retention": ("DELETE", r"/checkpoints/"),
    "metrics": ("PUT", r"/metrics/"),
    "export": ("PUT", r"/export/"),
}


class Watched:
    """A run as its bucket shows it, looked at without the proxy; raises AssertionError where something is lost."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.newest = Checkpoint(0, 0)
        self._whole: dict[Checkpoint, Manifest] = {}

    def check(self) -> None:
        """Every committed checkpoint is whole, and there is one at least as new as the newest seen so far."""
        sizes = {entry.name: entry.size for entry in self.store.list("checkpoints/")}
        found = layout.committed(sizes)
        for checkpoint in found:
            if checkpoint not in self._whole:
                self._whole[checkpoint] = self._verified(checkpoint)
            for file, about in self._whole[checkpoint].files.items():
                assert sizes.get(checkpoint.prefix + file) == about.size, f"{checkpoint.prefix}{file} is not whole"
        newest = max(found, default=Checkpoint(0, 0))
        assert newest.step >= self.newest.step, f"{self.newest} was committed, and now the newest is {newest}"
        self.newest = newest

    def resumed(self, said: str, before: Checkpoint) -> None:
        """An attempt went on from the newest that was there before it began."""
        assert "is passed over" not in said, said
        if found := re.search(r"resumed from the checkpoint of step (\d+)", said):
            assert int(found[1]) >= before.step, f"{before} was committed, and the attempt went on from {found[1]}"
        elif re.search(rf"step \d+/{STEPS}", said):
            assert before.step == 0, f"{before} was committed, and the attempt began from nothing"

    def losses(self) -> dict[int, set[float]]:
        """Every loss that any attempt reported for a step."""
        found: dict[int, set[float]] = {}
        for entry in self.store.list("metrics/"):
            for line in self.store.read(entry.name).splitlines():
                fields = msgspec.json.decode(line)
                found.setdefault(fields["step"], set()).add(fields["loss"])
        return found

    def weights(self) -> bytes:
        return self.store.read("export/model.safetensors")

    def _verified(self, checkpoint: Checkpoint) -> Manifest:
        manifest = read_manifest(self.store, checkpoint)
        for file, about in manifest.files.items():
            data = self.store.read(checkpoint.prefix + file)
            blocks = [data[at : at + manifest.block_bytes] for at in range(0, len(data), manifest.block_bytes)]
            digests = [xxhash.xxh3_128_hexdigest(block) for block in blocks]
            assert digests == about.digests, f"{checkpoint.prefix}{file} is not what its manifest says"
        return manifest


@dataclass
class Aim:
    """Kills at the `nth` request of a kind, before it is passed on or a moment later."""

    kind: str
    nth: int
    life: Life
    delay: float
    hit: bool = False

    def sees(self, method: str, path: str) -> None:
        wanted, pattern = MOMENTS[self.kind]
        if self.hit or method != wanted or not re.search(pattern, path.partition("?")[0]):
            return
        self.nth -= 1
        if self.nth <= 0:
            self.hit = True
            time.sleep(self.delay)
            self.life.kill()


class Soak:
    """A number of kills over as many runs as they take."""

    def __init__(self, machine: Machine, server: servers.Server, proxy: FaultProxy, seed: int) -> None:
        self.machine = machine
        self.server = server
        self.proxy = proxy
        self.draw = random.Random(seed)
        self.kinds = itertools.cycle(self.draw.sample(list(MOMENTS), len(MOMENTS)))
        """Of moments to aim at: every seed comes to each."""
        self.faults: Plan = seeded(seed, FAULTS)
        self.uri = servers.make_bucket(server, "soak")
        self.kills: Counter[str] = Counter()
        self.runs = 0
        self.takeovers: list[float] = []

    def reference(self) -> Watched:
        """The run that nobody touches, without faults."""
        self.machine.ended([])  # it is warm when it answers
        began = time.monotonic()
        life = self.machine.start("reference", self.uri, CHANGES, self.server.environment)
        assert life.wait(180), life.said
        assert life.finished, life.said
        self.seconds = time.monotonic() - began
        watched = Watched(open_store(self.uri).inside("reference"))
        watched.check()
        return watched

    def run(self, reference: Watched, kills: int, takeovers: int, until: float) -> None:
        """Runs from beginning to end, one after the other, until so many kills are done or the time is up."""
        losses, weights = reference.losses(), reference.weights()
        while sum(self.kills.values()) < kills and time.monotonic() < until:
            self.runs += 1
            name = f"run-{self.runs}"
            watched = Watched(open_store(self.uri).inside(name))
            with_takeover = len(self.takeovers) < takeovers
            while not self._one_life(name, watched, kills, until, with_takeover):
                with_takeover = with_takeover and len(self.takeovers) < takeovers
            seen = watched.losses()
            assert seen == losses, f"{name} has other losses than the undisturbed run"
            assert watched.weights() == weights, f"{name} has other weights than the undisturbed run"

    def _one_life(self, name: str, watched: Watched, kills: int, until: float, with_takeover: bool) -> bool:
        """One attempt, killed unless enough are; whether the run is finished."""
        before = watched.newest
        life = self._start(name)
        if sum(self.kills.values()) >= kills or time.monotonic() > until:
            self.proxy.plan = self.faults
            assert life.wait(180), life.said
        elif with_takeover and self.draw.random() < 0.5:
            life = self._takeover(name, life)
        else:
            self._kill_sometime(life)
        watched.resumed(life.said, before)
        watched.check()
        assert life.finished or -signal.SIGKILL in life.codes.values(), life.said
        return life.finished

    def _kill_sometime(self, life: Life) -> None:
        """At a random moment, or at a random request of a random kind, if it comes."""
        aim = None
        if self.draw.random() < 0.5:
            aim = Aim(next(self.kinds), self.draw.choice((1, 1, 2, 3)), life, self.draw.choice((0.0, 0.0, 0.005, 0.02)))

        def plan(method: str, path: str) -> str:
            if aim is not None:
                aim.sees(method, path)
            return self.faults(method, path)

        self.proxy.plan = plan
        # A life that is left alone for the whole of a run ends by itself, and nobody is killed.
        longest = 0.7 * self.seconds
        if not life.wait(longest if aim else self.draw.uniform(0.0, longest)):
            life.kill()
            assert life.wait(60)
        self.proxy.plan = self.faults
        if not life.finished:
            self.kills[aim.kind if aim is not None and aim.hit else "any moment"] += 1

    def _takeover(self, name: str, old: Life) -> Life:
        """Another attempt begins while this one is alive: the old one stops by itself."""
        self.proxy.plan = self.faults
        while f"/{STEPS}" not in old.said and not old.over():
            time.sleep(0.05)
        began = time.monotonic()
        new = self._start(name)
        while "started on" not in new.said and not new.over():
            time.sleep(0.05)
        assert old.wait(180), f"the older attempt goes on:\n{old.said}"
        if "has taken over this run" in old.said:
            self.takeovers.append(time.monotonic() - began)
        else:
            assert old.finished, old.said
        assert new.wait(180), new.said
        return new

    def _start(self, name: str) -> Life:
        environment = {**self.server.environment, "AWS_ENDPOINT_URL": self.proxy.endpoint}
        return self.machine.start(name, self.uri, CHANGES, environment)


@contextlib.contextmanager
def prepared(seed: int) -> Iterator[Soak]:
    """Server, proxy and machine, in a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder, servers.seaweedfs(Path(folder, "s3")) as server:
        os.environ.update(server.environment)
        with FaultProxy(server.endpoint, stall_seconds=8) as proxy:
            machine = Machine(Path(folder))
            try:
                yield Soak(machine, server, proxy, seed)
            finally:
                machine.close()


def main() -> int:
    """Print what was killed where; 1 where something was lost."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--takeovers", type=int, default=2)
    options.add_argument("--minutes", type=float, default=14.0)
    chosen = options.parse_args()
    began = time.monotonic()
    print(f"soak: seed {chosen.seed}", flush=True)
    with prepared(chosen.seed) as soak:
        reference = soak.reference()
        print(f"the undisturbed run of {STEPS} steps takes {soak.seconds:.1f} s", flush=True)
        soak.run(reference, chosen.kills, chosen.takeovers, began + 60 * chosen.minutes)
        done = sum(soak.kills.values())
        print(f"{done} SIGKILLs in {time.monotonic() - began:.0f} s over {soak.runs} runs: {dict(soak.kills)}")
        print(f"faults on the way: {dict(Counter(soak.proxy.done))}")
        print(f"older attempts that stopped by themselves after {[round(each, 1) for each in soak.takeovers]} s")
        print("every committed checkpoint whole, none lost, losses and weights of every run bit-equal")
    return 0 if done >= chosen.kills else 1


if __name__ == "__main__":
    sys.exit(main())
