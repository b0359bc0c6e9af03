"""What a cloud charged, read from its billing export, beside what was computed. The edge to the files; two layouts are
known, by their columns: AWS cost and usage reports (legacy and 2.0) and Google Cloud's export, as CSV or Parquet.

A charge belongs to a run by the tag or label `vlaunch-run`, which rendered tasks carry.
"""

import csv
import datetime
import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from launcher.errors import MissingPart, RecipeError
from launcher.lines import cents
from launcher.report import CostReport
from launcher.task_yaml import LABEL, label_of

_AWS_COST = ("lineItem/UnblendedCost", "line_item_unblended_cost")
_AWS_START = ("lineItem/UsageStartDate", "line_item_usage_start_date")
_AWS_TAG = (f"resourceTags/user:{LABEL}", "resource_tags_user_vlaunch_run")
_AWS_CURRENCY = ("lineItem/CurrencyCode", "line_item_currency_code")


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an export."""

    run_id: str
    """As its label says it; empty where it carries none of ours."""
    usd: float
    day: str


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A run's dollars, computed and charged."""

    run_id: str
    usd_computed: float | None
    usd_charged: float | None
    """None where the export has no charge of it."""
    usd_difference: float | None
    """Charged less computed."""
    why: str
    """What may explain the difference."""


def charges(path: Path) -> list[Charge]:
    """Every charge of an export file. Raises RecipeError where it is not one, MissingPart for Parquet without
    pyarrow."""
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise RecipeError(f"The billing export {path} has no rows.")
    if any(column in first for column in _AWS_COST):
        read = _aws
    elif "cost" in first and "usage_start_time" in first:
        read = _gcp
    else:
        some = ", ".join(list(first)[:5])
        raise RecipeError(
            f"The billing export {path} has the columns {some}...; known are AWS cost and usage reports "
            "(line_item_unblended_cost) and Google Cloud's billing export (cost, usage_start_time)."
        )
    found = []
    for number, row in enumerate(_again(first, rows), start=2):
        try:
            found.append(read(row))
        except (ValueError, TypeError, KeyError) as failure:
            raise RecipeError(f"Row {number} of the billing export {path} cannot be read: {failure}.") from None
    return found


def compare(report: CostReport, charged: Iterable[Charge]) -> list[Compared]:
    """Computed beside charged, a row a run that is in either and is not simulated."""
    sums: dict[str, float] = {}
    days: set[str] = set()
    for charge in charged:
        days.add(charge.day)
        if charge.run_id:
            sums[charge.run_id] = sums.get(charge.run_id, 0.0) + charge.usd
    computed = {label_of(run.run_id): run for run in report.runs if not run.simulated}
    found = []
    for run_id in [*computed, *(each for each in sums if each not in computed)]:
        run = computed.get(run_id)
        usd = run.usd_machines if run else None
        paid = cents(sums[run_id]) if run_id in sums else None
        found.append(
            Compared(
                run_id=run_id,
                usd_computed=usd,
                usd_charged=paid,
                usd_difference=cents(paid - usd) if paid is not None and usd is not None else None,
                why=_why(usd, paid, run_ends=[a.ended_at or "" for a in run.attempts] if run else [], days=days),
            )
        )
    return found


def _why(computed: float | None, charged: float | None, *, run_ends: list[str], days: set[str]) -> str:
    if charged is None:
        return "the export has no charge with its label; exports lag a day or two, and labels must be activated in AWS"
    if computed is None:
        return (
            "no price was known for one of its machines" if run_ends else "the ledger of this machine does not know it"
        )
    if run_ends and days and max(run_ends)[:10] > max(days):
        return f"the export ends on {max(days)}, before the run did"
    if charged > computed:
        return "disks, addresses and traffic of its machines are charged and not computed; or the spot price rose"
    if charged < computed:
        return "credits and discounts are not computed; or a machine was detected late and not charged"
    return ""


def _aws(row: dict[str, Any]) -> Charge:
    currency = _first(row, _AWS_CURRENCY) or "USD"
    if currency != "USD":
        raise ValueError(f"its currency is {currency}, and only USD is compared")
    tag = _first(row, _AWS_TAG) or _map(row.get("resource_tags")).get(f"user_{LABEL.replace('-', '_')}") or ""
    return Charge(run_id=tag, usd=float(_first(row, _AWS_COST) or 0.0), day=_day(_first(row, _AWS_START)))


def _gcp(row: dict[str, Any]) -> Charge:
    if (currency := row.get("currency") or "USD") != "USD":
        raise ValueError(f"its currency is {currency}, and only USD is compared")
    credited = sum(float(each["amount"]) for each in _list(row.get("credits")))
    return Charge(
        run_id=_map(row.get("labels")).get(LABEL, ""),
        usd=float(row["cost"] or 0.0) + credited,
        day=_day(row["usage_start_time"]),
    )


def _first(row: dict[str, Any], columns: Iterable[str]) -> Any:
    return next((row[column] for column in columns if row.get(column) not in (None, "")), None)


def _day(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        return value.date().isoformat()
    return str(value or "")[:10]


def _list(value: Any) -> list[Any]:
    """A repeated field: a list already, or JSON in a CSV."""
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else []
    return list(value) if value else []


def _map(value: Any) -> dict[str, str]:
    """Tags or labels: a mapping, pairs, records of key and value, or any of these as JSON."""
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else {}
    if not value:
        return {}
    if isinstance(value, dict):
        return {str(key): str(each) for key, each in value.items()}
    pairs = [(each["key"], each["value"]) if isinstance(each, dict) else each for each in value]
    return {str(key): str(each) for key, each in pairs}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
            return
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as failure:
        raise RecipeError(f"The billing export {path} cannot be read: {failure}.") from None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingPart("Reading a Parquet export needs pyarrow: pip install 'vlaunch[billing]'") from None
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as failure:
        raise RecipeError(f"The billing export {path} cannot be read: {failure}.") from None


def _again(first: dict[str, Any], rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield first
    yield from rest
