"""What to do now: hold, start on spot in a zone, start on demand, or wait, and why. Pure.

The same object decides in a replay and in production: whoever runs it tells what it sees (`Observation`), does what
comes back (`Decision`), and asks again at the next moment something can be done. It knows no clock, cloud or file.
"""

from typing import Any, Literal, Protocol

import msgspec

Action = Literal["hold", "spot", "on_demand", "wait"]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the run holds now."""

    zone: str
    spot: bool
    age_hours: float = 0.0
    """Since it was asked for."""
    starting_hours: float = 0.0
    """Of the restart overhead, what is still to be spent before it works."""


class Zone(msgspec.Struct, frozen=True, kw_only=True):
    """A zone as it is known now."""

    name: str
    region: str = ""
    """Zones of one region share egress; empty: a region of its own."""
    spot_usd_per_hour: float | None = None
    """None: no spot price is known, so spot is never started here."""
    on_demand_usd_per_hour: float | None = None
    available: bool | None = None
    """Whether a spot machine would start now; None where nobody has looked."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What changing machines costs, for one job."""

    restart_hours: float
    """From asking for a machine to useful work on it."""
    checkpoint_hours: float = 0.0
    """Writing what is done before a machine is left by choice."""
    commit_every_hours: float = 0.0
    """Work between two commits; 0: nothing is ever lost."""
    detection_hours: float = 0.0
    """From the loss of a machine to the decision that follows it."""
    sure_hours: float = 0.0
    """How long a spot machine that was seen alive surely goes on: a tick in a recorded market, 0 in a real one."""
    move_usd: float = 0.0
    """Reading a checkpoint out of the region it lies in."""
    probe_usd: float = 0.0
    """Finding out whether a zone has machines."""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision may depend on, besides what the policy remembers of earlier ones."""

    now_hours: float
    """Since the run began."""
    next_hours: float
    """Until the next decision, at the latest."""
    work_left_hours: float
    """As of the state that would survive a loss now plus nothing: work done and not committed counts as done."""
    uncommitted_hours: float = 0.0
    """Work done since the last commit; lost with the machine."""
    deadline_hours: float | None = None
    """From the run's beginning."""
    machine: Machine | None = None
    zones: tuple[Zone, ...]
    costs: Costs
    spent_usd: float = 0.0
    budget_usd: float | None = None
    utc_hour: float | None = None
    """Of the day, where it is known."""
    data_region: str = ""
    """Where the newest checkpoint lies."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, and the reason in words."""

    action: Action
    zone: str = ""
    """For `spot` and `on_demand`."""
    reason: str = ""


class Policy(Protocol):
    """Decides. Deterministic: the same observations in the same order give the same decisions."""

    def decide(self, seen: Observation) -> Decision:
        """What to do until the next decision."""

    def notice(self, at_hours: float, zones: tuple[Zone, ...]) -> None:
        """Learn from what was seen of the zones at a time, earlier times first; hours before the run are negative."""

    def memory(self) -> dict[str, Any]:
        """What it remembers, as JSON's types, for whoever must survive a restart of its process."""

    def remember(self, memory: dict[str, Any]) -> None:
        """Take back what `memory` gave."""
