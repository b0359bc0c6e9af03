"""What a recipe says of checkpoints. Light: the laptop reads it too."""

import msgspec

KEEP_AT_LEAST = 2
ASSUMED_GB_PER_SECOND = 1.0
"""From all the processes of a large GPU machine together to a bucket; assumed, not measured."""


class CheckpointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[checkpoints]` section of a recipe."""

    store: str = ""
    """Where runs are kept: `s3://bucket/prefix`, `gs://bucket/prefix`, or a folder. Empty: it must be given
    at launch (a local run takes a folder of its own)."""

    every_seconds: float = 0.0
    """Time between saves. 0: by Young and Daly, from what a save is measured to cost and how long machines last."""

    floor_seconds: float = 60.0
    """Not more often than this, where `every_seconds` is 0."""

    ceiling_seconds: float = 1800.0
    """Not less often than this, where `every_seconds` is 0 and a save does not itself take half as long."""

    machine_life_seconds: float = 3600.0
    """How long a machine is expected to last; what this run's own machines did is weighed in. A large spot machine
    lasted an hour in the mean of published traces, a small one three."""

    keep: int = 2
    """How many committed checkpoints stay; the newest may turn out damaged, so at least two."""

    transfer_memory_mb: int = 256
    """Most that one process holds of what is on its way to or from a bucket."""

    @property
    def longest_seconds(self) -> float:
        """The most time between saves: what a promise is reckoned with."""
        return self.every_seconds or self.ceiling_seconds

    def expected_seconds(self, gigabytes: float) -> float:
        """The time between saves of so much, before one has been measured: `every_seconds`, else twice what a save
        takes to be durable at ASSUMED_GB_PER_SECOND, within floor and ceiling."""
        durable = gigabytes / ASSUMED_GB_PER_SECOND
        return self.every_seconds or max(self.floor_seconds, min(2 * durable, self.ceiling_seconds))

    def __post_init__(self) -> None:
        for key in ("floor_seconds", "machine_life_seconds"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key} is {getattr(self, key):g}; it must be above 0")
        if self.every_seconds < 0:
            raise ValueError(f"every_seconds is {self.every_seconds:g}; it must be above 0, or 0 to be reckoned")
        if self.ceiling_seconds < self.floor_seconds:
            raise ValueError(
                f"ceiling_seconds is {self.ceiling_seconds:g}, under floor_seconds, {self.floor_seconds:g}"
            )
        if self.transfer_memory_mb < 64:
            raise ValueError(f"transfer_memory_mb is {self.transfer_memory_mb}; at least 64")
        if self.keep < KEEP_AT_LEAST:
            raise ValueError(f"keep is {self.keep}; at least {KEEP_AT_LEAST}, so that a damaged one can be passed over")
