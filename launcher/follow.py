"""A managed job as it goes on, line by line, for a person who watches. Reads and says; closing it changes nothing."""

import time
from collections.abc import Callable

from checkpoints.stores import StoreError, open_store
from launcher import journal, skypilot
from launcher.ledger import Record

_LOOK_SECONDS = 10.0
"""A look costs a small server seconds of CPU."""
_TOLD = {
    "notice_received": "told to leave",
    "stopped": "has saved and left",
    "training_started": "trains",
    "save_failed": "could not save",
    "finished": "finished",
}


class Follower:
    """What has been said of a run so far."""

    def __init__(self, run_id: str, store: str, say: Callable[[str], None]) -> None:
        self.run_id = run_id
        self.store = open_store(store).inside(run_id)
        self.say = say
        self._job: skypilot.Job | None = None
        self._decisions = self._events = self._step = 0
        self._silent = ""
        self._trainer = journal.TrainerLog(self.store)

    def to_the_end(self) -> skypilot.Job:
        """Say what happens until the job is over; the job then. Raises SkyPilotError."""
        while True:
            job = skypilot.job_of(self.run_id)
            self._say_job(job)
            try:
                self._say_run()
            except StoreError as failure:
                if str(failure) != self._silent:
                    self.say(f"steps and dollars are not seen now: {failure}")
                self._silent = str(failure)
            if job.over:
                return job
            time.sleep(_LOOK_SECONDS)

    def _say_job(self, job: skypilot.Job) -> None:
        before, self._job = self._job, job
        if before is not None and (before.state, before.place, before.recoveries) == (
            job.state, job.place, job.recoveries,
        ):  # fmt: skip
            return
        where = f" in {job.place}" if job.place and job.state in ("running", "starting") else ""
        again = f", recovered {job.recoveries} times" if job.recoveries else ""
        self.say(f"[SkyPilot job {job.job_id}] {job.state}{where}{again}")

    def _say_run(self) -> None:
        decided = journal.decisions(journal.read(self.store))
        for record in decided[self._decisions :]:
            self.say(f"[vlaunch] {in_words(record)}")
        self._decisions = len(decided)
        events = self._trainer.events()
        for event in events[self._events :]:
            if told := _TOLD.get(event["event"]):
                at = f", step {event['step']}" if "step" in event else ""
                self.say(f"[attempt {event['attempt']}] {told}{at}")
        self._events = len(events)
        metrics = self._trainer.metrics()
        if metrics and metrics[-1]["step"] != self._step:
            last = metrics[-1]
            self._step = last["step"]
            usd = "dollars unknown" if last["usd"] is None else f"${last['usd']:.2f} so far"
            self.say(f"[attempt {last['attempt']}] step {last['step']}/{last['steps']}  loss {last['loss']:.4f}  {usd}")


def in_words(record: Record) -> str:
    """A decision of the journal for a person."""
    facts = record.facts
    if record.kind in ("deadline_lost", "store_unreachable"):
        return str(facts["why"])
    what = {"spot": "spot in", "on_demand": "on demand in", "wait": "waits", "hold": "stays"}[facts["action"]]
    return f"{what} {facts['zone']}: {facts['reason']}" if facts["zone"] else f"{what}: {facts['reason']}"
