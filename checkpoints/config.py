"""What a recipe says of checkpoints. Light: the laptop reads it too."""

import msgspec

KEEP_AT_LEAST = 2


class CheckpointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[checkpoints]` section of a recipe."""

    store: str = ""
    """Where runs are kept: `s3://bucket/prefix`, `gs://bucket/prefix`, or a folder. Empty: it must be given
    at launch (a local run takes a folder of its own)."""

    every_seconds: float = 900.0
    """Time between saves. The step waits only for the copy out of the model."""

    keep: int = 2
    """How many committed checkpoints stay; the newest may turn out damaged, so at least two."""

    def __post_init__(self) -> None:
        if self.every_seconds <= 0:
            raise ValueError(f"every_seconds is {self.every_seconds:g}; it must be above 0")
        if self.keep < KEEP_AT_LEAST:
            raise ValueError(f"keep is {self.keep}; at least {KEEP_AT_LEAST}, so that a damaged one can be passed over")
