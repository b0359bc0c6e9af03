"""Scores joined with the ledger: what each run that was evaluated cost to train, and what it scores."""

import datetime
from collections.abc import Iterable, Iterator

from evaluation.scores import PairScore
from evaluation.worth import RunWorth
from launcher import runs
from launcher.ledger import Ledger
from launcher.report import RunCost, run_cost


def worth(pairs: Iterable[PairScore], ledger: Ledger, now: datetime.datetime) -> list[RunWorth]:
    """A row for each run of each pair. Raises StoreError where a run's store cannot be read."""
    pairs = list(pairs)
    if not any(pair.runs for pair in pairs):
        return []
    known = ledger.runs()
    wanted = {run_id for pair in pairs for run_id in pair.runs.values()}
    costs = {run_id: run_cost(runs.facts(known[run_id]), now) for run_id in sorted(wanted) if run_id in known}
    return [row for pair in pairs for row in _rows(pair, costs)]


def _rows(pair: PairScore, costs: dict[str, RunCost]) -> Iterator[RunWorth]:
    totals = {pair.baseline: pair.baseline_total, pair.candidate: pair.candidate_total}
    for name, run_id in pair.runs.items():
        other = pair.baseline if name == pair.candidate else pair.candidate
        cost = costs.get(run_id)
        yield RunWorth(
            run_id=run_id,
            name=name,
            against=other,
            mean_score=totals[name] / pair.scored if pair.scored else None,
            ratio=totals[name] / totals[other] if totals[other] else None,
            usd_trained=cost.usd_spent if cost else None,
            usd_judged=pair.cost.usd,
            price_source=cost.price_source if cost else "not in this ledger",
            simulated=bool(cost and cost.simulated),
        )
