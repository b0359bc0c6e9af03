"""How long the command takes to answer, in seconds of CPU, beside SkyPilot's own: `python benchmarks/startup.py`.

Each command runs a few times; the median of user and system time is shown.
"""

import resource
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

TIMES = 5
LIMIT_SECONDS = 0.25
"""Of CPU, for the two commands a person types first."""


def cpu_seconds(command: list[str]) -> float:
    """The median of several runs, after one that warms the disk's cache."""
    spent = []
    for _ in range(TIMES + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(spent[1:])


def main() -> int:
    """Print the table; 1 where vlaunch is over its limit."""
    beside = Path(sys.executable).parent
    ours = {
        "vlaunch --help": [str(beside / "vlaunch"), "--help"],
        "vlaunch train --help": [str(beside / "vlaunch"), "train", "--help"],
    }
    sky = shutil.which("sky", path=str(beside))
    found = {name: cpu_seconds(command) for name, command in ours.items()}
    peer = cpu_seconds([sky, "--help"]) if sky else None
    for name, seconds in found.items():
        ratio = f", {peer / seconds:.0f} times less than sky --help" if peer else ""
        print(f"{name:22s} {seconds:6.3f} s of CPU{ratio}")
    print(f"{'sky --help':22s} {peer:6.3f} s of CPU" if peer else "sky is not installed here")
    return int(any(seconds > LIMIT_SECONDS for seconds in found.values()))


if __name__ == "__main__":
    sys.exit(main())
