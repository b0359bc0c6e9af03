"""What a managed job does next: shows the policy how the run stands, keeps what it decided and what came of it in the
run's own store, and guards budget and deadline. It knows a store, a clock and a policy; nothing of SkyPilot, which
launcher/recovery.py is for.

An example: `next_move` says spot in zone a; `started(a)`; ticks say hold; `ended(preempted)`; `next_move` says on
demand, because the deadline is near; a tick says spot in b, so `ask_to_leave`; the trainer saves and leaves;
`ended(moved)`; `next_move` is the spot in b that the tick decided.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from checkpoints import layout
from checkpoints.stores import Store
from launcher.journal import Journal
from launcher.ledger import Record
from market.deadline import can_spot, spare_hours
from market.policy import Costs, Decision, Machine, Observation, Policy, Zone

_PRICED_OUT = 100.0
"""Times the dearest machine allowed: what on demand costs where it is not allowed, for a policy that weighs it."""
_UNKNOWN_WORK_HOURS = 1.0
"""Of a run that nobody can say the work of, until its first step."""
LEAVING_HOURS = 90 / 3600
"""From the note to leave to the end of the machine's bill, the save aside: the trainer reads it within 20 s, SkyPilot
looks at a job every 15 s, and was seen to need 49 s to take a machine down."""
DETECTION_HOURS = 2 / 60
"""From the loss of a machine to SkyPilot's calling it lost."""


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of the strategy in a task's `job_recovery`."""

    work_hours: float | None = None
    """An estimate of all the work at launch, until the trainer's own is there."""
    deadline_hours: float | None = None
    """From the launch."""
    budget_usd: float | None = None
    max_usd_per_hour: float | None = None
    """Of the whole machine, all nodes."""
    on_demand: bool = False
    """Whether machines on demand may be used."""
    restart_minutes: float = 10.0
    """From asking for a machine to training on it, until it has been measured."""
    retry_minutes: float = 5.0
    """How long a zone that refused or took a machine counts as closed; doubled at each refusal in a row."""
    tick_seconds: float = 60.0
    """Between two looks at a run that goes on."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One of the machines that the task lists."""

    place: str
    spot: bool
    usd_per_hour: float
    """All nodes."""

    @property
    def words(self) -> str:
        return f"{'spot' if self.spot else 'on demand'} in {self.place} at ${self.usd_per_hour:.2f} an hour"


class Stop(Exception):
    """The run ends here by our own rules; the text says why and how to go on."""


class Steering:
    """The mind of one managed job. Methods raise StoreError where the run's store cannot be reached; what was to be
    written is kept and written with the next."""

    def __init__(
        self,
        run_id: str,
        store: Store,
        *,
        rules: Rules,
        candidates: Sequence[Candidate],
        policy: Policy,
        save_every_seconds: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.run_id = run_id
        self.rules = rules
        self.policy = policy
        self.now = now
        self.store = store
        self.journal = Journal(run_id, store, now)
        self.candidates = [
            each
            for each in candidates
            if (each.spot or rules.on_demand)
            and (rules.max_usd_per_hour is None or each.usd_per_hour <= rules.max_usd_per_hour)
        ]
        self._save_every_hours = save_every_seconds / 3600
        self._planned: Decision | None = None
        """What a tick has decided; done when the machine has been left."""

    def resume(self) -> None:
        """Take up what an earlier controller has left, or begin."""
        self.journal.read()
        if not self.candidates:
            raise Stop("No machine of the task is within max_usd_per_hour; raise it, or list other places.")
        launched, ended = self.journal.last("launched"), self.journal.last("ended")
        if launched is None or (ended is not None and ended.at > launched.at):  # or a person goes on with it
            self.journal.append("launched", rules=msgspec.to_builtins(self.rules))
        decided = self.journal.last("decision")
        if decided is not None:
            self.policy.remember(decided.facts["memory"])

    def next_move(self) -> tuple[Decision, Candidate | None]:
        """With no machine: start this one, or wait. Raises Stop where the budget is spent."""
        seen = self.observe()
        self._check_budget()
        planned, self._planned = self._planned, None
        decision = planned or self._decide(seen)
        chosen = self._candidate(decision)
        self._record(decision, seen)
        return decision, chosen

    def tick(self) -> Decision:
        """With a machine that works: hold it, or leave it for what the decision says."""
        self.journal.write()  # what the store did not take before
        seen = self.observe()
        decision = self._decide(seen)
        if decision.action != "hold":
            self._planned = decision
            self._record(decision, seen)
        else:
            self._warn_of_deadline(seen)
        return decision

    def over_budget(self) -> bool:
        """Whether the run has to leave now so as not to pass its budget."""
        budget = self.rules.budget_usd
        machine = self.journal.machine()
        if budget is None or machine is None:
            return False
        # Until the next look, and then the trainer still has to save and the machine to be taken down.
        hours = 2 * self.rules.tick_seconds / 3600 + self._saving_hours() + LEAVING_HOURS
        reserve = hours * machine.facts["usd_per_hour"]
        return bool(self.journal.spent_usd() + min(reserve, budget / 2) >= budget)

    def ask_to_leave(self, reason: str) -> None:
        """Tell the trainer to save and leave: a note beside its attempt, which it reads within seconds."""
        attempt = layout.newest_attempt(entry.name for entry in self.store.list("attempts/"))
        note = msgspec.json.encode({"at": self.journal.time(), "reason": reason})
        self.store.create(layout.leave_name(attempt), note)

    def started(self, candidate: Candidate, asked: float) -> None:
        """A machine works; it was asked for at `asked`, seconds since 1970, and is counted from there."""
        machine = self.journal.count("machine_started") + 1
        self.journal.append(
            "machine_started", at=asked, machine=machine, place=candidate.place, spot=candidate.spot,
            usd_per_hour=candidate.usd_per_hour, price_source="SkyPilot's catalog, at the launch",
        )  # fmt: skip

    def refused(self, candidate: Candidate) -> None:
        self.journal.append("refused", place=candidate.place, spot=candidate.spot)

    def ended(self, reason: str, *, preempted: bool) -> None:
        """The machine is gone; nothing where there was none."""
        machine = self.journal.machine()
        if machine is not None:
            self.journal.append("machine_ended", machine=machine.facts["machine"], reason=reason, preempted=preempted)

    def trained(self) -> bool:
        """Whether the trainer has begun on the machine of now."""
        machine = self.journal.machine()
        return machine is not None and any(
            event["event"] == "training_started" and event["at"] >= machine.at for event in self.journal.progress()[0]
        )

    def over(self, how: str, why: str = "") -> None:
        """The run has ended: `finished` or `stopped`."""
        self.ended(how, preempted=False)
        launched, ended = self.journal.last("launched"), self.journal.last("ended")
        if ended is None or launched is None or ended.at < launched.at:
            self.journal.append("ended", state=how, why=why)

    def observe(self) -> Observation:
        """How the run stands, for the policy."""
        events, metrics = self.journal.progress()
        machine = self.journal.machine()
        now = self.now()
        left, uncommitted = _work(events, metrics, self.rules, now if machine else None)
        return Observation(
            now_hours=(now - self.journal.began()) / 3600,
            next_hours=self.rules.tick_seconds / 3600,
            work_left_hours=left,
            uncommitted_hours=uncommitted,
            deadline_hours=self.rules.deadline_hours,
            machine=self._machine(machine, events, now) if machine else None,
            zones=tuple(self._zones(now)),
            costs=Costs(
                restart_hours=self._restart_hours(events),
                checkpoint_hours=self._saving_hours(events),
                commit_every_hours=self._save_every_hours,
                detection_hours=DETECTION_HOURS,
            ),
            spent_usd=self.journal.spent_usd(),
            budget_usd=self.rules.budget_usd,
            utc_hour=now / 3600 % 24,
        )

    def _check_budget(self) -> None:
        budget = self.rules.budget_usd
        spent = self.journal.spent_usd()
        if budget is not None and (spent >= budget or self._leaving_for_budget()):
            why = (
                f"The budget of ${budget:.2f} is used up (${spent:.2f} spent). What was committed is safe and no "
                f"machine runs; go on with: vlaunch train --resume {self.run_id} --budget USD"
            )
            self.over("stopped", why)
            raise Stop(why)

    def _leaving_for_budget(self) -> bool:
        ended, launched = self.journal.last("machine_ended"), self.journal.last("launched")
        assert launched is not None
        return ended is not None and ended.at > launched.at and ended.facts["reason"] == "budget"

    def _decide(self, seen: Observation) -> Decision:
        if all(not each.spot for each in self.candidates):
            return self._only_on_demand(seen)
        decision = self.policy.decide(seen)
        if decision.action == "on_demand" and not self._on_demand():
            reason = f"on demand is not allowed; else: {decision.reason}"
            return Decision(action="wait" if seen.machine is None else "hold", reason=reason)
        cheapest = min((each for each in self.candidates if each.spot), key=lambda each: each.usd_per_hour)
        if decision.action == "wait" and not self._closed(cheapest.place, self.now()) and can_spot(seen, fresh=True):
            # The policy would see its opening last first; here nobody looks, and waiting tells nothing.
            reason = "whether a machine is to be had is only learnt by asking for one"
            return Decision(action="spot", zone=cheapest.place, reason=reason)
        return decision

    def _only_on_demand(self, seen: Observation) -> Decision:
        """Where the task lists nothing else there is nothing to weigh but the price."""
        if seen.machine is not None:
            return Decision(action="hold", reason="the task lists machines on demand only")
        open_ = [each for each in self.candidates if not self._closed(each.place, self.now())]
        if not open_:
            return Decision(action="wait", reason="every place has refused a machine just now")
        cheapest = min(open_, key=lambda each: each.usd_per_hour)
        return Decision(action="on_demand", zone=cheapest.place, reason="the cheapest that the task lists")

    def _on_demand(self) -> bool:
        return any(not each.spot for each in self.candidates)

    def _candidate(self, decision: Decision) -> Candidate | None:
        if decision.action in ("wait", "hold"):
            return None
        spot = decision.action == "spot"
        return next(each for each in self.candidates if each.place == decision.zone and each.spot == spot)

    def _record(self, decision: Decision, seen: Observation) -> None:
        """Keep a decision, unless it is the last one again."""
        last = self.journal.last("decision")
        repeated = decision.action == "wait" and last is not None and last.facts["action"] == "wait"
        if not repeated:
            self.journal.append(
                "decision", action=decision.action, zone=decision.zone, reason=decision.reason,
                memory=self.policy.memory(), work_left_hours=seen.work_left_hours, spent_usd=seen.spent_usd,
            )  # fmt: skip
        self._warn_of_deadline(seen)

    def _warn_of_deadline(self, seen: Observation) -> None:
        """Say it once, as soon as no way is left to be in time, with what the ways left cost."""
        if self.rules.deadline_hours is None or self.journal.last("deadline_lost") is not None:
            return
        spare = spare_hours(seen)
        if spare >= 0:
            return
        ways = [
            {
                "place": each.place,
                "spot": each.spot,
                "hours_late": -spare if not each.spot else None,
                "usd": (seen.work_left_hours + seen.costs.restart_hours) * each.usd_per_hour,
            }
            for each in sorted(self.candidates, key=lambda each: (each.spot, each.usd_per_hour))
        ]
        late = f"at least {-spare:.1f} h late" if -spare >= 0.1 else f"at least {-spare * 60:.0f} min late"
        cheapest = {way["spot"]: way for way in reversed(ways)}
        costs = " or ".join(
            f"${way['usd']:.2f} {'on spot, if it is not taken away,' if spot else 'on demand'} in {way['place']}"
            for spot, way in sorted(cheapest.items())
        )
        self.journal.append(
            "deadline_lost", ways=ways,
            why=f"The deadline cannot be met any more: {late}. What is left costs {costs}.",
        )  # fmt: skip

    def _machine(self, record: Record, events: list[dict[str, Any]], now: float) -> Machine:
        age = (now - self.journal.seconds(record.at)) / 3600
        trains = any(event["event"] == "training_started" and event["at"] >= record.at for event in events)
        return Machine(
            zone=record.facts["place"],
            spot=record.facts["spot"],
            age_hours=age,
            starting_hours=0.0 if trains else max(0.0, self._restart_hours(events) - age),
        )

    def _zones(self, now: float) -> list[Zone]:
        found: dict[str, dict[str, Any]] = {}
        for each in self.candidates:
            zone = found.setdefault(each.place, {"name": each.place, "region": each.place.rpartition("/")[0]})
            zone["spot_usd_per_hour" if each.spot else "on_demand_usd_per_hour"] = each.usd_per_hour
            if each.spot:
                zone["available"] = not self._closed(each.place, now)
        if not self._on_demand():
            out = _PRICED_OUT * max(each.usd_per_hour for each in self.candidates)
            return [Zone(**zone, on_demand_usd_per_hour=out) for zone in found.values()]
        return [Zone(**zone) for zone in found.values()]

    def _closed(self, place: str, now: float) -> bool:
        """Nobody can ask a cloud whether a spot machine would start. A zone counts as open, but for a while after
        it has refused or taken a machine; the while doubles with every refusal in a row."""
        bad = 0
        since = 0.0
        for record in self.journal.records:
            if record.kind == "machine_started" and record.facts["place"] == place:
                bad = 0
            elif (record.kind == "refused" and record.facts["place"] == place) or (
                record.kind == "machine_ended" and record.facts["preempted"] and self.journal.place_of(record) == place
            ):
                bad += 1
                since = self.journal.seconds(record.at)
        return bad > 0 and now < since + self.rules.retry_minutes * 60 * 2 ** (bad - 1)

    def _restart_hours(self, events: list[dict[str, Any]]) -> float:
        """The longest seen from asking for a machine to training on it; before that the rules' figure."""
        starts = [event["at"] for event in events if event["event"] == "training_started"]
        seen = []
        for decided in (record for record in self.journal.records if record.kind == "decision"):
            after = [at for at in starts if at > decided.at]
            later = [r.at for r in self.journal.records if r.kind == "decision" and r.at > decided.at]
            if decided.facts["action"] in ("spot", "on_demand") and after and (not later or after[0] < later[0]):
                seen.append((self.journal.seconds(after[0]) - self.journal.seconds(decided.at)) / 3600)
        return max(seen, default=self.rules.restart_minutes / 60)

    def _saving_hours(self, events: list[dict[str, Any]] | None = None) -> float:
        """The longest save seen."""
        events = self.journal.progress()[0] if events is None else events
        return max((event["seconds"] / 3600 for event in events if event["event"] == "save_committed"), default=0.0)


def default_policy() -> Policy:
    """The one that `vlaunch market replay` calls vlaunch."""
    from market.policies import OURS, named

    return named(OURS)


def _work(
    events: list[dict[str, Any]], metrics: list[dict[str, Any]], rules: Rules, now: float | None
) -> tuple[float, float]:
    """Hours of work left, and of those done hours that are not committed; `now` is None with no machine, when what
    was not committed is lost."""
    committed = max((event["step"] for event in events if event["event"] == "save_committed"), default=0)
    if not metrics:
        return (rules.work_hours or _UNKNOWN_WORK_HOURS), 0.0
    last = metrics[-1]
    steps, step = last["steps"], last["step"]
    pace = last["seconds_left"] / 3600 / (steps - step) if steps > step else 0.0
    if now is None:
        return (steps - committed) * pace, 0.0
    return (steps - step) * pace, max(0, step - committed) * pace
