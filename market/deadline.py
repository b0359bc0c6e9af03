"""Whether the deadline is still met on demand after whatever the spot market does next. Pure.

On demand is taken to be there whenever it is asked for; that is the one assumption of the promise. Until the next
decision a spot machine may die at the worst moment: then everything since the last commit is to be done again, the
loss is noticed late, and a machine on demand still has to start.
"""

import math

from market.policy import Observation

GRAIN = 1e-9
"""Hours; sums of hours are not exact."""


def spare_hours(seen: Observation) -> float:
    """Time left over if the run went to on demand now and stayed there; infinite without a deadline."""
    if seen.deadline_hours is None:
        return math.inf
    left = seen.deadline_hours - seen.now_hours - seen.work_left_hours
    machine = seen.machine
    if machine is not None and not machine.spot:
        return left - machine.starting_hours
    return left - seen.costs.restart_hours - _leaving_hours(seen)


def can_wait(seen: Observation) -> bool:
    """Whether nothing need run until the next decision."""
    need = seen.work_left_hours + seen.costs.restart_hours + _leaving_hours(seen)
    return _left_after(seen) >= need - GRAIN


def can_spot(seen: Observation, *, fresh: bool) -> bool:
    """Whether spot may run until the next decision: the machine held, or a `fresh` one."""
    costs, machine = seen.costs, seen.machine
    uncommitted = seen.uncommitted_hours
    starting = costs.restart_hours
    leaving = 0.0
    if fresh:
        leaving, uncommitted = _leaving_hours(seen), 0.0
    elif machine is not None:
        starting = machine.starting_hours
    worked = max(0.0, min(costs.sure_hours, seen.next_hours) - starting - leaving)
    lost = uncommitted
    if worked > 0:
        lost = (uncommitted + worked) % costs.commit_every_hours if costs.commit_every_hours else 0.0
    need = seen.work_left_hours - worked + lost + costs.restart_hours + costs.detection_hours
    return _left_after(seen) >= need - GRAIN


def _left_after(seen: Observation) -> float:
    """Time to the deadline at the next decision."""
    if seen.deadline_hours is None:
        return math.inf
    return seen.deadline_hours - seen.now_hours - seen.next_hours


def _leaving_hours(seen: Observation) -> float:
    """Saving what is not committed before a machine is left by choice."""
    return seen.costs.checkpoint_hours if seen.machine is not None and seen.uncommitted_hours > 0 else 0.0
