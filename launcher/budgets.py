"""The budgets a person has set, in config.toml beside the ledger, and what they leave for a new run. The edge to that
file and to the ledger.
"""

import datetime

import msgspec
import yaml

from launcher.errors import RecipeError, RunError
from launcher.forecast import GOING, Budgets, left_this_month
from launcher.ledger import Ledger, Record, home
from launcher.report import cost
from launcher.runs import facts, launched

NAME = "config.toml"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    budgets: Budgets = msgspec.field(default_factory=Budgets)


def budgets() -> Budgets:
    """What is set; none where there is no file. Raises RecipeError where it cannot be used."""
    path = home() / NAME
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Config).budgets
    except FileNotFoundError:
        return Budgets()
    except OSError as failure:
        raise RecipeError(f"{path} cannot be read: {failure.strerror}.") from failure
    except msgspec.DecodeError as failure:
        raise RecipeError(
            f"{path} cannot be used: {failure}. Known is [budgets] with run_usd, month_usd, at_limit."
        ) from None


def allowed(asked: float | None, ledger: Ledger, now: datetime.datetime) -> float | None:
    """What a new run in a cloud may cost: the least of what was asked for, the budget of a run, and what is left of
    the month's once every run that goes on has used up its own. None: no limit. Raises RunError where nothing is left.
    """
    limits = budgets()
    if limits.at_limit != "stop":
        return asked
    found = [limit for limit in (asked, limits.run_usd) if limit is not None]
    if limits.month_usd is not None:
        runs = ledger.runs()
        report = cost([facts(records) for records in runs.values()], now)
        going = [run.run_id for run in report.runs if run.state in GOING]
        promised = {run: usd for run in going if (usd := _budget(runs[run]))}
        left = left_this_month(report, limits.month_usd, promised)
        if left is None:
            raise RunError("What this month has cost is not known, because a price is not; see: vlaunch cost report")
        if left <= 0:
            raise RunError(
                f"The month's budget of ${limits.month_usd:,.2f} is spent, or promised to runs that go on; raise "
                f"month_usd in {home() / NAME} to launch another."
            )
        found.append(left)
    return min(found, default=None)


def _budget(records: list[Record]) -> float | None:
    """What a run in a cloud was allowed at its launch."""
    task = yaml.safe_load(launched(records).get("task_yaml") or "") or {}
    recovery = (task.get("resources") or {}).get("job_recovery")
    return recovery.get("budget_usd") if isinstance(recovery, dict) else None
