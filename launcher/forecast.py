"""What runs that go on will have cost by their end and by the end of the month, and what budgets say to it. Pure.

What is left of a run is the trainer's own estimate at the price of its machine: at the least that and no more
preemption, at the most that over the run's goodput so far, as if the hours to come are lost as those before were.
A service has no end: at the least its replicas of now go on at their prices, at the most as many on demand.
"""

import datetime
from collections.abc import Mapping
from typing import Literal

import msgspec

from launcher.lines import cents, grouped, total
from launcher.machines import time_of
from launcher.report import CostReport, RunCost

WARN_AT = 0.8
GOING = ("queued", "starting", "running", "recovering")
"""States of a run that may still spend."""
_LEAST_GOODPUT = 0.25
"""A run that has just begun shows no goodput to speak of."""


class Budgets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[budgets]` section of config.toml. None: no such budget."""

    run_usd: float | None = None
    """Of each run."""
    month_usd: float | None = None
    """Of everything in a calendar month, UTC."""
    at_limit: Literal["warn", "stop"] = "warn"
    """`stop`: a run that reaches its budget saves and stops."""

    def __post_init__(self) -> None:
        for key in ("run_usd", "month_usd"):
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise ValueError(f"{key} is {value:g}; it must be above 0")


class RunForecast(msgspec.Struct, frozen=True, kw_only=True):
    """Where one run is going. Dollars are None where they cannot be known."""

    run_id: str
    usd_spent: float | None
    hours_left: tuple[float, float] | None
    """Low and high."""
    usd_at_end: tuple[float, float] | None
    usd_at_month_end: tuple[float, float] | None
    """Spent by the end of this month, if it goes on as it does."""
    simulated: bool


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What `vlaunch cost forecast --json` prints."""

    generated_at: str
    runs: list[RunForecast]
    month: str
    """`2026-11`."""
    usd_this_month: float | None
    """Spent in it so far, by everything that is not simulated."""
    usd_month_end: tuple[float, float] | None
    warnings: list[str]


def forecast(report: CostReport, budgets: Budgets) -> Forecast:
    """Over the runs of `report` that go on, and the month over all of its lines."""
    now = time_of(report.generated_at)
    month = f"{now:%Y-%m}"
    so_far = _this_month(report)
    reckon = {"run": _run, "service": _service}
    runs = [reckon[run.kind](run, now) for run in report.runs if run.state in GOING]
    paid = [run for run in runs if not run.simulated]
    month_end = None
    if so_far is not None and all(run.usd_at_month_end is not None for run in paid):
        more = [(run.usd_at_month_end, run.usd_spent) for run in paid]
        low, high = (cents(so_far + sum(end[i] - (spent or 0.0) for end, spent in more if end)) for i in (0, 1))
        month_end = (low, high)
    return Forecast(
        generated_at=report.generated_at,
        runs=runs,
        month=month,
        usd_this_month=so_far,
        usd_month_end=month_end,
        warnings=warnings(report, budgets, so_far, month),
    )


def left_this_month(report: CostReport, month_usd: float, promised: Mapping[str, float]) -> float | None:
    """Of the month's budget, less what every run that goes on may still spend by the budget it was `promised`; None
    where what was spent is not known."""
    so_far = _this_month(report)
    if so_far is None:
        return None
    spent = {run.run_id: run.usd_spent or 0.0 for run in report.runs}
    return cents(month_usd - so_far - sum(max(0.0, usd - spent.get(run, 0.0)) for run, usd in promised.items()))


def _this_month(report: CostReport) -> float | None:
    """Spent in it so far by everything that is not simulated."""
    now = time_of(report.generated_at)
    days = grouped([line for line in report.lines if not line.simulated], "day", now)
    return total(day.usd for day in days if day.key.startswith(f"{now:%Y-%m}"))


def warnings(report: CostReport, budgets: Budgets, this_month: float | None, month: str) -> list[str]:
    """A sentence for each budget that is used up to four fifths or more."""
    said = []
    for run in report.runs:
        if run.state in GOING and budgets.run_usd and run.usd_spent is not None:
            said += _warning(f"{run.run_id} has", run.usd_spent, budgets.run_usd, "the budget of a run")
    if budgets.month_usd and this_month is not None:
        said += _warning(f"everything in {month} has", this_month, budgets.month_usd, "the month's budget")
    return said


def _warning(who: str, usd: float, budget: float, what: str) -> list[str]:
    if usd < WARN_AT * budget:
        return []
    return [f"{who} spent ${usd:,.2f}, {usd / budget:.0%} of {what} (${budget:,.2f})"]


def _run(run: RunCost, now: datetime.datetime) -> RunForecast:
    price = run.attempts[-1].usd_per_hour if run.attempts else None
    left = None
    if run.hours_left is not None:
        left = (run.hours_left, run.hours_left / max(_LEAST_GOODPUT, run.goodput or 1.0))
    at_end = month_end = None
    if left is not None and price is not None and run.usd_spent is not None:
        until = _hours_to_month_end(now)
        at_end = (cents(run.usd_spent + left[0] * price), cents(run.usd_spent + left[1] * price))
        month_end = tuple(cents(run.usd_spent + min(hours, until) * price) for hours in left)
    return RunForecast(
        run_id=run.run_id,
        usd_spent=run.usd_spent,
        hours_left=left,
        usd_at_end=at_end,
        usd_at_month_end=(month_end[0], month_end[1]) if month_end else None,
        simulated=run.simulated,
    )


def _service(service: RunCost, now: datetime.datetime) -> RunForecast:
    month_end = None
    going = [attempt.usd_per_hour for attempt in service.attempts if attempt.ended_at is None]
    least, each = sum(usd or 0.0 for usd in going), service.on_demand_usd_per_hour
    if service.usd_spent is not None and each is not None and None not in going:
        hours = _hours_to_month_end(now)
        low, high = (cents(service.usd_spent + hours * usd) for usd in (least, max(least, len(going) * each)))
        month_end = (low, high)
    return RunForecast(
        run_id=service.run_id,
        usd_spent=service.usd_spent,
        hours_left=None,
        usd_at_end=None,
        usd_at_month_end=month_end,
        simulated=service.simulated,
    )


def _hours_to_month_end(now: datetime.datetime) -> float:
    over = (now.replace(day=28) + datetime.timedelta(days=4)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (over - now).total_seconds() / 3600
