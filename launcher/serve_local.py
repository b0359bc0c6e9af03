"""The embedded default of serving: a gateway and replicas on this machine, under the same simulated spot market that
trains here. Replicas that are taken away are replaced; a new version replaces them one at a time; between their least
and most number they come and go by what the gateway has to do.

It runs the very text of a service, and knows nothing of what a request is.
"""

import contextlib
import copy
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import yaml

from launcher.errors import RunError
from launcher.ledger import Ledger
from launcher.local import Fate, Machine, fates, kill_all, locked
from launcher.local_gateway import LocalGateway, answers, free_port, measured
from launcher.recipe import LocalConfig
from launcher.serve_scale import Scaling
from launcher.serve_spec import ReplicasConfig
from market.offers import Offer

_LOOK_SECONDS = 0.1
_CRASHES = 2
"""So many replicas in a row that end by themselves without having been ready end the service."""
_SCALE_SECONDS = 1.0


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """What replicas of one model are to be; written into the service's folder, where the service looks."""

    number: int
    model: str
    text: str
    """The service's YAML."""


class Replica:
    """A place among the replicas of a model, and the machine that fills it."""

    def __init__(self, model: str, index: int, stays: bool) -> None:
        self.model = model
        self.index = index
        self.stays = stays
        """On demand: the market does not take it."""
        self.machine: Machine | None = None
        self.number = 0
        self.version = 0
        self.offer: Offer | None = None
        self.lost_in: str | None = None
        self.end = float("inf")
        self.fate = Fate(None, announced=False)
        self.asked_at: float | None = None
        """When its machine was asked for, by the clock that only goes on."""
        self.began = 0.0
        self.ready = False
        self.ready_port = 0
        self.leaving_until: float | None = None
        self.leaving_why = ""
        self.retired = False
        """Its place is not filled again."""


class LocalService:
    """Keeps replicas and a gateway going until a person stops it."""

    def __init__(
        self,
        service: str,
        versions: dict[str, str],
        offers: list[Offer],
        on_demand: Offer,
        replicas: ReplicasConfig,
        config: LocalConfig,
        folder: Path,
        ledger: Ledger,
        say: Callable[[str], None],
        *,
        token: str,
        port: int,
        spot: bool = True,
        gateway_arguments: Sequence[str] = (),
    ) -> None:
        """`versions` is the text of each model's service."""
        self.service = service
        self.offers = offers
        self.on_demand = on_demand
        self.config = config
        self.folder = folder
        self.ledger = ledger
        self.say = say
        self.token = token
        self.port = port
        self.spot = spot
        self.gateway = LocalGateway(
            f"{service}/gateway",
            token,
            port,
            gateway_arguments,
            lambda line: self._hear(f"[gateway] {line}", quiet=True),
        )
        self.wanted = {model: Version(number=1, model=model, text=text) for model, text in versions.items()}
        self.bounds = replicas
        self.count = dict.fromkeys(versions, replicas.min)
        """How many replicas each model is to have now."""
        self.replicas = [
            Replica(model, index, self._stays(index)) for model in versions for index in range(replicas.min)
        ]
        self.number = 0
        """Of the newest machine."""
        self.preemptions = 0
        self.market_is_done = False
        """No machine that runs will be taken away."""
        self._stops = 0
        self._fates = fates(config)
        self._crashes = 0
        self._scalings = {model: scaling(replicas) for model in versions}
        self._scaled_at = 0.0
        self._lines = threading.Lock()
        self._last: list[str] = []

    def _stays(self, index: int) -> bool:
        return not self.spot or index < self.bounds.on_demand_base

    @property
    def stopping(self) -> bool:
        return self._stops > 0

    def stop(self, *_: Any) -> None:
        """Fit for a signal handler."""
        self._stops += 1

    def run(self) -> None:
        """Until a person stops it. Raises RunError where it cannot go on."""
        with locked(self.folder, self.service), (self.folder / "log.txt").open("a", buffering=1) as log:
            self._log = log
            (self.folder / "pid").write_text(str(os.getpid()))
            self._end_all()  # of a launcher that died
            try:
                self._start_gateway()
                while not self._stops:
                    self._tick()
                    time.sleep(_LOOK_SECONDS)
            except RunError as failure:
                self.ledger.append("ended", self.service, state="failed", why=str(failure))
                raise
            else:
                self.ledger.append("ended", self.service, state="stopped", why="stopped by a person")
            finally:
                self._shut()

    def _tick(self) -> None:
        """Look at everything once."""
        if not self.gateway.running:
            self._hear("[gateway] ended; starting it again")
            self._start_gateway()
        self._read_versions()
        for replica in list(self.replicas):
            self._look(replica)
        self._roll()
        self._scale(time.monotonic())
        whole = all(replica.ready and replica.leaving_until is None for replica in self.replicas)
        self.market_is_done = whole and self.preemptions >= self.config.max_preemptions

    def _look(self, replica: Replica) -> None:
        now = time.monotonic()
        if replica.machine is None:
            if replica.retired:
                self.replicas.remove(replica)
            else:
                self._fill(replica, now)
            return
        code = replica.machine.exit_code()
        if replica.leaving_until is not None:
            if code is not None or now >= replica.leaving_until:
                self._end(replica, replica.leaving_why, preempted=replica.leaving_why.startswith("preempted"))
        elif code is not None:
            self._end(replica, f"the replica ended with code {code}", preempted=False)
            self._count_crash(replica)
        elif now >= replica.end:
            self._preempt(replica, now)
        elif not replica.ready and answers(replica.ready_port):
            replica.ready, self._crashes = True, 0
            self.ledger.append("machine_ready", self.service, machine=replica.number)
            # A life counts from here: a machine that is taken while its engine loads shows nothing.
            life = replica.fate.life_seconds
            replica.end = float("inf") if life is None else now + life
            self._hear(f"[{self._name(replica)}] ready after {now - replica.began:.0f} s")
        elif not replica.ready and now > replica.began + self.bounds.ready_within_seconds:
            self._end(replica, f"not ready within {self.bounds.ready_within_seconds:g} s", preempted=False)
            self._count_crash(replica)

    def _fill(self, replica: Replica, now: float) -> None:
        """Have a machine for it, once the market has had its time to give one."""
        if replica.asked_at is None:
            replica.asked_at = now
        if now < replica.asked_at + self.config.start_seconds:
            return
        version = self.wanted[replica.model]
        self.number += 1
        replica.number, replica.version = self.number, version.number
        replica.offer = self.on_demand if replica.stays else self._choose(replica)
        replica.fate = Fate(None, announced=False) if replica.stays else next(self._fates)
        replica.asked_at, replica.ready, replica.leaving_until = None, False, None
        task = copy.deepcopy(yaml.safe_load(version.text))
        replica.ready_port = free_port()
        task["envs"] |= {
            "VLAUNCH_GATEWAY": self.gateway.address,
            "VLAUNCH_WORKER_TOKEN": self.token,
            "VLAUNCH_ENGINE_PORT": str(free_port()),
            "VLAUNCH_READY_PORT": str(replica.ready_port),
            "HF_HUB_OFFLINE": "1",
            # Replicas of one machine share its cores.
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.bounds.max * len(self.wanted))),
        }
        machine = Machine(f"{self.service}/{self.number}", replica.offer, self.folder / "disks" / str(self.number))
        self.ledger.append(
            "machine_started", self.service, machine=self.number, model=replica.model, place=replica.offer.place,
            usd_per_hour=replica.offer.usd_per_hour,
            price_source=f"{replica.offer.price_source}, {replica.offer.price_date}", initial=replica.lost_in is None,
        )  # fmt: skip
        name = self._name(replica)
        usd = replica.offer.usd_per_hour
        self._hear(f"[local market] {name} in {replica.offer.place} at ${usd:.2f} an hour (simulated)")
        replica.began = time.monotonic()
        replica.machine = machine
        machine.boot(task)
        machine.start(task, lambda line: self._hear(f"[{name}] {line}", quiet=True))
        replica.end = float("inf")

    def _choose(self, replica: Replica) -> Offer:
        """Not where one has just been taken, then where fewest others are, then the cheapest."""
        others = [r.offer.place for r in self.replicas if r is not replica and r.machine is not None and r.offer]
        return min(
            self.offers, key=lambda o: (o.place == replica.lost_in, others.count(o.place), o.usd_per_hour, o.place)
        )

    def _preempt(self, replica: Replica, now: float) -> None:
        assert replica.offer is not None
        grace = self.config.grace_seconds
        how = f"notice, {grace:g} s to leave" if replica.fate.announced else "no notice"
        self._hear(f"[local market] {replica.offer.place} takes {self._name(replica)} away ({how})")
        self.preemptions += 1
        replica.lost_in = replica.offer.place
        if replica.fate.announced:
            self._ask_to_leave(replica, "preempted (notice)", now + grace)
        else:
            self._end(replica, "preempted (no notice)", preempted=True)

    def _ask_to_leave(self, replica: Replica, why: str, until: float) -> None:
        assert replica.machine is not None
        replica.leaving_until, replica.leaving_why = until, why
        replica.machine.notify()

    def _end(self, replica: Replica, why: str, *, preempted: bool) -> None:
        assert replica.machine is not None
        replica.machine.end()
        replica.machine, replica.ready, replica.leaving_until = None, False, None
        self._hear(f"[{self._name(replica)}] gone: {why}")
        self.ledger.append("machine_ended", self.service, machine=replica.number, reason=why, preempted=preempted)

    def _count_crash(self, replica: Replica) -> None:
        self._crashes += 1
        if self._crashes >= _CRASHES:
            last = self._last_lines(self._name(replica))
            raise RunError(
                f"{_CRASHES} replicas in a row ended before they were ready. The last one's last lines:\n{last}"
            )

    def _roll(self) -> None:
        """Replace replicas of an old version: a new one more, and once it is ready an old one less."""
        for model, version in self.wanted.items():
            ours = [replica for replica in self.replicas if replica.model == model]
            old = [r for r in ours if r.machine is not None and r.version < version.number]
            if not old or any(not r.ready or r.leaving_until is not None for r in ours):
                continue
            if len(ours) <= self.count[model]:
                self.replicas.append(Replica(model, len(ours), old[-1].stays))
            else:
                old[-1].retired = True
                until = time.monotonic() + self.config.grace_seconds
                self._ask_to_leave(old[-1], f"replaced by version {version.number}", until)

    def _read_versions(self) -> None:
        """A new version is a file that somebody has put into the folder whole."""
        for path in sorted(self.folder.glob("version-*.json")):
            version = msgspec.json.decode(path.read_bytes(), type=Version)
            if version.model in self.wanted and version.number > self.wanted[version.model].number:
                self.wanted[version.model] = version
                self._hear(f"[service] version {version.number} of {version.model}: replacing its replicas in turn")

    def _scale(self, now: float) -> None:
        """Have as many replicas as there is work for, where the spec says how much work one takes."""
        if now < self._scaled_at + _SCALE_SECONDS or not any(self._scalings.values()):
            return
        self._scaled_at = now
        requests = measured(self.port, "vlaunch_open_requests")
        for model, scale in self._scalings.items():
            ours = [replica for replica in self.replicas if replica.model == model]
            if scale is None or len(ours) != self.count[model]:
                continue  # one is on its way out, or one more is there while versions change
            wanted = scale.choose(now, requests[model], len(ours))
            if wanted == len(ours):
                continue
            self._hear(f"[service] {requests[model]} requests of {model}: {len(ours)} replicas become {wanted}")
            self.count[model] = wanted
            for index in range(len(ours), wanted):
                self.replicas.append(Replica(model, index, self._stays(index)))
            # Those that stay, and those that are ready, go last.
            for replica in sorted(ours, key=lambda r: (r.stays, r.ready, -r.index))[: len(ours) - wanted]:
                replica.retired = True
                if replica.machine is not None and replica.leaving_until is None:
                    self._ask_to_leave(replica, "no work for it", now + self.config.grace_seconds)

    def _start_gateway(self) -> None:
        if not self.gateway.start():
            raise RunError(
                f"The gateway did not start on port {self.port}. Its last lines:\n{self._last_lines('gateway')}"
            )
        self._hear(f"[gateway] {self.gateway.address}")

    def _shut(self) -> None:
        """Nothing of the service is left on this machine."""
        for replica in self.replicas:
            if replica.machine is not None:
                self._end(replica, "stopped by a person", preempted=False)
        self.gateway.end()
        self._end_all()
        with contextlib.suppress(OSError):
            (self.folder / "disks").rmdir()

    def _end_all(self) -> None:
        for mark in marks(self.service):
            kill_all(mark)

    def _name(self, replica: Replica) -> str:
        return f"{replica.model} replica {replica.number}"

    def _last_lines(self, who: str) -> str:
        with self._lines:
            return "\n".join(line for line in self._last if line.startswith(f"[{who}]"))

    def _hear(self, line: str, quiet: bool = False) -> None:
        """Into the log; to the person what is not `quiet`."""
        with self._lines:
            self._last = [*self._last[-60:], line]
            if not self._log.closed:
                self._log.write(line + "\n")
        if not quiet:
            self.say(line)


def marks(service: str) -> set[str]:
    """The marks of every process on this machine that belongs to the service."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            mark = process.environ().get("VLAUNCH_MACHINE", "")
            if mark.startswith(f"{service}/"):
                found.add(mark)
    return found


def scaling(replicas: ReplicasConfig) -> Scaling | None:
    """None where their number does not change."""
    if replicas.target_requests is None or replicas.max == replicas.min:
        return None
    delays = replicas.upscale_delay_seconds, replicas.downscale_delay_seconds
    return Scaling(replicas.min, replicas.max, replicas.target_requests, *delays)


def order(folder: Path, version: Version) -> None:
    """Tell the service that runs in `folder` to go over to `version`."""
    path = folder / f"version-{version.number:04d}-{version.model}.json"
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(version))
    partial.rename(path)


def ordered(folder: Path) -> Iterator[Version]:
    """The versions that were ordered, oldest first."""
    for path in sorted(folder.glob("version-*.json")):
        yield msgspec.json.decode(path.read_bytes(), type=Version)
