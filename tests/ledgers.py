"""A home with runs whose every record is written out, for tests of what a person sees of them."""

import datetime
from pathlib import Path
from typing import Any

import msgspec

T = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)


def at(minutes: float) -> str:
    return (T + datetime.timedelta(minutes=minutes)).isoformat()


class Home:
    """A VLAUNCH_HOME in the making."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self._events: dict[str, int] = {}

    def record(self, run: str, kind: str, minutes: float, **facts: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "ledger.jsonl").open("ab") as file:
            file.write(msgspec.json.encode({"kind": kind, "at": at(minutes), "run_id": run, "facts": facts}) + b"\n")

    def run(self, run: str, minutes: float = 0, **changes: Any) -> None:
        facts = {
            "recipe": "vicuna-7b",
            "owner": "ada",
            "store": str(self.store),
            "infra": "aws",
            "spot": True,
            "simulated": False,
            "on_demand_usd_per_hour": 40.24,
            "price_source": "a price list, 2026-11-23",
        }
        self.record(run, "run", minutes, **(facts | changes))

    def machine(
        self, run: str, number: int, begin: float, end: float | None, usd: float | None, **changes: Any
    ) -> None:
        """One machine at `usd` an hour from minute `begin` to `end`; preempted unless `changes` say why it ended."""
        place = changes.pop("place", "aws/us-east-1/use1-az1")
        self.record(
            run, "machine_started", begin, machine=number, place=place, usd_per_hour=usd,
            price_source="a price list, 2026-11-23", accelerator="A100-80GB:8",
        )  # fmt: skip
        if end is not None:
            facts = {"reason": "preempted (no notice)", "preempted": True} | changes
            self.record(run, "machine_ended", end, machine=number, **facts)

    def event(self, run: str, minutes: float, attempt: int, event: str, **facts: Any) -> None:
        self._events[run] = self._events.get(run, 0) + 1
        path = self.store / run / "events" / f"{attempt:04d}-{self._events[run]:06d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode({"event": event, "at": at(minutes), "attempt": attempt, **facts}))

    def two_machines(self, run: str = "vicuna-7b-20261123-a1b2c3") -> str:
        """90 minutes at $12.64, taken away with 10 minutes of work uncommitted, then 60 at $13.10 elsewhere."""
        self.run(run)
        self.machine(run, 1, 0, 90, 12.64)
        self.machine(run, 2, 100, 160, 13.10, place="gcp/us-central1/us-central1-a", reason="finished", preempted=False)
        self.record(run, "ended", 160, state="finished", why="")
        for attempt, start, saved in ((1, 6, 80), (2, 105, 160)):
            self.event(run, start, attempt, "training_started", step=(attempt - 1) * 40, steps=100)
            self.event(run, saved - 1, attempt, "save_started", step=40 + (attempt - 1) * 60)
            self.event(run, saved, attempt, "save_committed", step=40 + (attempt - 1) * 60)
        self.event(run, 160, 2, "finished", step=100)
        return run
