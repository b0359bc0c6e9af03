"""CPU of `vlaunch cost report` and `vlaunch status` over a ledger of 10,000 runs: `python benchmarks/reports.py`.

Each run has three machines and the records a real launch of vicuna-7b writes, eight kilobytes of recipe and task among
them. The peer is Python's own json module reading the same file once, without reckoning anything.
"""

import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from launcher import launch, recipe

RUNS = 10_000
ROOT = Path(__file__).resolve().parent.parent


def write(folder: Path) -> Path:
    """The ledger."""
    named = recipe.load("vicuna-7b")
    prepared = launch.prepare(named, spot=True, infra=None, zones=(), max_price=None, run_id="a-run")
    launched = {
        "recipe": named.name, "owner": "ada", "recipe_text": named.text, "task_yaml": prepared.text,
        "store": str(folder / "store"), "infra": "", "spot": True, "simulated": False,
        "offers": [msgspec.to_builtins(offer) for offer in prepared.plan.offers],
        "on_demand_usd_per_hour": 40.24, "price_source": "made up for a benchmark",
    }  # fmt: skip
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    path = folder / "ledger.jsonl"
    with path.open("wb") as file:

        def record(kind: str, minute: int, run: str, facts: dict[str, object]) -> None:
            at = (begin + datetime.timedelta(minutes=minute)).isoformat()
            file.write(msgspec.json.encode({"kind": kind, "at": at, "run_id": run, "facts": facts}) + b"\n")

        for number in range(RUNS):
            run, minute = f"vicuna-7b-20260101-{number:06x}", number * 30
            record("run", minute, run, launched)
            for machine in (1, 2, 3):
                where = {"place": "aws/us-east-1/use1-az1", "usd_per_hour": 12.64, "price_source": "made up"}
                record("machine_started", minute + machine * 60, run, {"machine": machine, **where})
                ended = {"machine": machine, "reason": "preempted (notice)", "preempted": machine < 3}
                record("machine_ended", minute + machine * 60 + 50, run, ended)
            record("ended", minute + 240, run, {"state": "finished", "why": ""})
    return path


def cpu(*command: str, home: Path) -> float:
    """Seconds of CPU of one command, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, cwd=ROOT, env={**os.environ, "VLAUNCH_HOME": str(home)}, stdout=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        path = write(home)
        print(f"{RUNS:,} runs, {path.stat().st_size / 1e6:.0f} MB of ledger")
        vlaunch = (sys.executable, "-m", "launcher")
        reading = f"import json; [json.loads(line) for line in open({str(path)!r})]"
        commands = {
            "json alone": (sys.executable, "-c", reading),
            "vlaunch cost report": (*vlaunch, "cost", "report"),
            "vlaunch cost report --json": (*vlaunch, "cost", "report", "--json"),
            "vlaunch cost report --by day": (*vlaunch, "cost", "report", "--by", "day"),
            "vlaunch status": (*vlaunch, "status"),
        }
        peer = 0.0
        for label, command in commands.items():
            seconds = min(cpu(*command, home=home) for _ in range(3))
            peer = peer or seconds
            print(json.dumps({"command": label, "cpu_seconds": round(seconds, 2), "ratio": round(seconds / peer, 2)}))


if __name__ == "__main__":
    main()
