"""Learns that the machine is about to be taken, and tells the loop at the next step's end: save and leave.

SIGTERM is how a shutdown, Slurm, Kubernetes and SkyPilot say it. The handler only notes the time; the decision
to stop is made by all ranks together.
"""

import signal
import time
from types import FrameType


class Notice:
    """Whether this process has been told to leave, and when."""

    def __init__(self) -> None:
        self.at: float | None = None
        """time.monotonic() of the notice."""
        self.source = ""

    def listen(self) -> None:
        """From now on SIGTERM is a notice, not the end."""
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.at is None:
            self.at = time.monotonic()
            self.source = "SIGTERM"
