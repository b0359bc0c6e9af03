"""What a person sees of training, and the same as JSON lines in the run. Rank 0 speaks; the others are silent."""

import time
from typing import Any

import msgspec

from checkpoints.run import Attempt, utc_now
from checkpoints.stores import Entry, Store
from train.machine import Machine


class Progress:
    """Prints a line a step and notes it as metrics of the attempt."""

    def __init__(self, attempt: Attempt | None, machine: Machine, spent_before: float | None) -> None:
        self.attempt = attempt
        self.machine = machine
        self.spent_before = spent_before
        """Dollars of earlier attempts, None where one of them has no known price."""
        self.began = time.monotonic()
        self._seconds: list[float] = []

    def say(self, text: str) -> None:
        if self.attempt is not None:
            print(f"[attempt {self.attempt.number}] {text}", flush=True)

    def step(
        self, step: int, steps: int, *, loss: float, norm: float, rate: float, tokens: int, seconds: float
    ) -> None:
        """Report one step; `seconds` is what it took."""
        if self.attempt is None:
            return
        self._seconds = [*self._seconds[-19:], seconds]
        left = sum(self._seconds) / len(self._seconds) * (steps - step)
        usd = self.usd()
        line: dict[str, Any] = {
            "at": utc_now(), "attempt": self.attempt.number, "step": step, "steps": steps, "loss": loss,
            "gradient_norm": norm, "learning_rate": rate, "tokens_per_second": tokens / seconds,
            "seconds_left": left, "usd": usd,
        }  # fmt: skip
        self.attempt.metrics(line)
        dollars = "dollars unknown" if usd is None else f"${usd:.2f} so far ({self.machine.price_source})"
        self.say(
            f"step {step}/{steps}  loss {loss:.4f}  {tokens / seconds:,.0f} tokens/s  {clock(left)} left  {dollars}"
        )

    def usd(self) -> float | None:
        """Dollars of this run up to now, by the prices the task was given."""
        if self.machine.usd_per_hour is None or self.spent_before is None:
            return None
        return self.spent_before + (time.monotonic() - self.began) / 3600 * self.machine.usd_per_hour


def clock(seconds: float) -> str:
    """`1h02m`, `3m20s`, `9s`."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def spent_before(store: Store, attempt: int) -> float | None:
    """Dollars of the attempts before `attempt`, as the last sign of each shows; None where a price is unknown."""
    newest = {entry.name.partition("-")[0]: entry.name for entry in sorted(store.list("metrics/"), key=_name)}
    last: dict[int, float | None] = {}
    for name in newest.values():
        fields = msgspec.json.decode(store.read(name).splitlines()[-1])
        if fields["attempt"] < attempt:
            last[fields["attempt"]] = fields["usd"]
    if any(usd is None for usd in last.values()):
        return None
    return max((usd for usd in last.values() if usd is not None), default=0.0)


def _name(entry: Entry) -> str:
    return entry.name
