"""What a person sees of training, and the same as JSON lines in the run. Rank 0 speaks; the others are silent."""

import time
from typing import Any

from checkpoints import layout
from checkpoints.run import Attempt, utc_now
from checkpoints.stores import Entry, Store
from train.machine import Machine


class Progress:
    """Prints a line a step and notes it as metrics of the attempt."""

    def __init__(
        self, attempt: Attempt | None, machine: Machine, spent_before: float | None, paid_before: float = 0.0
    ) -> None:
        self.attempt = attempt
        self.machine = machine
        self.spent_before = spent_before
        """Dollars of earlier attempts, None where one of them has no known price."""
        self.paid_before = paid_before
        """Seconds of earlier attempts."""
        self.useful_seconds = 0.0
        """Spent in steps that count; a step that had to be done again counts once."""
        self.utilisation: float | None = None
        """Model FLOPs utilisation of one token a second; None where no peak is known."""
        self.began = self._step_ended = time.monotonic()
        self._seconds: list[float] = []

    def resumed(self, store: Store, step: int) -> None:
        """Go on from what the run's metrics say of the time after `step`."""
        self.useful_seconds = useful_until(store, step)

    def say(self, text: str) -> None:
        if self.attempt is not None:
            print(f"[attempt {self.attempt.number}] {text}", flush=True)

    def step(
        self, step: int, steps: int, *, loss: float, norm: float, rate: float, tokens: int, seconds: float
    ) -> None:
        """Report one step; `seconds` is what it took."""
        if self.attempt is None:
            return
        now = time.monotonic()
        stalled = max(0.0, now - seconds - self._step_ended) if self._seconds else 0.0
        self._step_ended = now
        self._seconds = [*self._seconds[-19:], seconds]
        self.useful_seconds += seconds
        paid = self.paid_before + now - self.began
        left = sum(self._seconds) / len(self._seconds) * (steps - step)
        usd = self.usd()
        line: dict[str, Any] = {
            "at": utc_now(), "attempt": self.attempt.number, "step": step, "steps": steps, "loss": loss,
            "gradient_norm": norm, "learning_rate": rate, "tokens_per_second": tokens / seconds,
            "seconds": seconds, "save_stall_seconds": stalled, "useful_seconds": self.useful_seconds,
            "paid_seconds": paid, "goodput": self.useful_seconds / paid,
            "mfu": None if self.utilisation is None else self.utilisation * tokens / seconds,
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


def spent_before(store: Store, attempt: int) -> tuple[float | None, float]:
    """Dollars and seconds of the attempts before `attempt`, as the last sign of each shows; None for dollars where a
    price is unknown."""
    newest = {entry.name.partition("-")[0]: entry.name for entry in sorted(store.list("metrics/"), key=_name)}
    signs = [sign for name in newest.values() for sign in list(layout.records(store.read(name)))[-1:]]
    last = [fields for fields in signs if fields["attempt"] < attempt]
    paid = max((fields["paid_seconds"] for fields in last), default=0.0)
    if any(fields["usd"] is None for fields in last):
        return None, paid
    return max((fields["usd"] for fields in last), default=0.0), paid


def useful_until(store: Store, step: int) -> float:
    """The useful seconds that the run's metrics note for `step`, looked for from the newest on."""
    for entry in sorted(store.list("metrics/"), key=_name, reverse=True):
        for fields in reversed(list(layout.records(store.read(entry.name)))):
            if fields["step"] == step:
                return float(fields["useful_seconds"])
    return 0.0


def _name(entry: Entry) -> str:
    return entry.name
