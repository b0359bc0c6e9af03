"""torchrun with an ending a person can read: the exit code of the worker that failed first is passed through
instead of a traceback of torchrun's own. Takes torchrun's arguments.
"""

import logging
import os
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

from train.config import INTERRUPTED
from train.preemption import GRACE


def main(arguments: list[str]) -> int:
    """Run the workers; their exit code, 128 + n where the first was killed by signal n."""
    # The agent's reports on its workers end in the same traceback that the workers' own words replace.
    for name in [*logging.root.manager.loggerDict, "torch.distributed.elastic"]:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    parsed = get_args_parser().parse_args(arguments)
    os.environ[GRACE] = str(parsed.shutdown_timeout or 30)  # torchrun's own; the workers plan their last save by it
    try:
        run(parsed)  # type: ignore[no-untyped-call]
    except ChildFailedError as failure:
        _, first = failure.get_first_failure()
        return int(first.exitcode) if first.exitcode > 0 else 128 - int(first.exitcode)
    except SignalException:
        # The agent was told to leave and its workers had the shutdown timeout to save.
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
