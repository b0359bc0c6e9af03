"""A run's metrics as TensorBoard's event files. The metrics are the truth; event files are made of them when somebody
wants to look, so a run needs nothing on its machine, and a step that was done again is there once.
"""

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from launcher.errors import MissingPart, RunError

SCALARS = (
    "loss", "gradient_norm", "learning_rate", "tokens_per_second", "mfu", "goodput", "save_stall_seconds", "usd",
)  # fmt: skip


def write(lines: Iterable[dict[str, Any]], folder: Path) -> int:
    """Write the metrics of `lines` (one dictionary a step, as the trainer notes them) as scalars below `folder`; the
    number of steps. Raises MissingPart without the tensorboard package, RunError where the folder cannot be written."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise MissingPart("Event files need TensorBoard: pip install 'vlaunch[tensorboard]'") from None
    kept = {line["step"]: line for line in lines}
    try:
        writer = EventFileWriter(str(folder))
        for step, line in sorted(kept.items()):
            known = [Summary.Value(tag=name, simple_value=line[name]) for name in SCALARS if line.get(name) is not None]
            at = datetime.datetime.fromisoformat(line["at"]).timestamp()
            writer.add_event(Event(wall_time=at, step=step, summary=Summary(value=known)))
        writer.close()
    except OSError as failure:
        raise RunError(f"The event files cannot be written to {folder}: {failure.strerror}.") from failure
    return len(kept)
