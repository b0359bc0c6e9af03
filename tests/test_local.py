"""The simulated market itself, with a shell script for a trainer: what survives, what is killed, what is said."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.errors import RunError
from launcher.ledger import Ledger
from launcher.local import Budget, LocalRun, alive, fates, kill_all, processes_of
from launcher.recipe import LocalConfig
from market.offers import Offer

# Counts to $LAST in the store, a number each 0.1 s, going on from where it was. The store's file is replaced whole:
# a machine may be killed at any moment.
COUNT = """
trap 'echo told to leave; exit 75' TERM
sleep 1000 & child=$!
n=$(cat $VLAUNCH_STORE/n 2>/dev/null || echo 0); touch on_this_disk
while [ $n -lt $LAST ]; do n=$((n+1)); echo $n > n.new; mv n.new $VLAUNCH_STORE/n; echo $n; sleep 0.1; done
kill $child
"""


def offer(zone: str, usd: float) -> Offer:
    return Offer(
        cloud="local", region="here", zone=zone, instance_type="this machine", accelerator="", accelerator_count=0,
        usd_per_hour=usd, spot=True, price_source="simulated", price_date="made up",
    )  # fmt: skip


class Trial:
    """A local run of a script, and what it said."""

    def __init__(
        self,
        folder: Path,
        run: str,
        *,
        last: int = 15,
        setup: str = "true",
        budget: Budget | None = None,
        **market: Any,
    ) -> None:
        (folder / "store").mkdir(exist_ok=True)
        task = {
            "setup": setup,
            "run": run,
            "envs": {"VLAUNCH_STORE": str(folder / "store"), "LAST": str(last)},
            "resources": {"job_recovery": {"max_restarts_on_errors": 1}},
        }
        settings: dict[str, Any] = {"start_seconds": 0, "grace_seconds": 5, "mean_life_seconds": 0.8, "seed": 3}
        self.said: list[str] = []
        self.ledger = Ledger(folder)
        self.folder = folder / "run"
        self.run = LocalRun(
            f"trial-{folder.name}", yaml.safe_dump(task), [offer("a", 1.0), offer("b", 2.0)],
            LocalConfig(**(settings | market)), self.folder, self.ledger, self.said.append, budget=budget,
        )  # fmt: skip

    def ends(self) -> list[str]:
        return [record.facts["reason"] for record in self.ledger.records() if record.kind == "machine_ended"]

    def places(self) -> list[str]:
        return [record.facts["place"] for record in self.ledger.records() if record.kind == "machine_started"]


def test_a_run_goes_on_in_another_zone_after_each_preemption_and_only_the_store_survives(tmp_path: Path) -> None:
    trial = Trial(tmp_path, COUNT, max_preemptions=2, notice_share=0.5)
    trial.run.run()
    counted = [int(line) for line in trial.said if line.isdigit()]
    # Nothing twice; a machine that was killed may have counted one that it did not live to say.
    assert counted == sorted(set(counted))
    assert (counted[0], counted[-1]) == (1, 15)
    assert len(counted) >= 13
    assert sorted(trial.ends()) == ["finished", "preempted (no notice)", "preempted (notice)"]
    assert trial.places() == ["local/here/a", "local/here/b", "local/here/a"]
    assert list((trial.folder / "disks").iterdir()) == []
    assert processes_of(trial.run.run_id) == []


def test_a_process_that_ignores_the_notice_is_killed_with_its_children_after_the_grace_period(tmp_path: Path) -> None:
    stubborn = (
        "trap '' TERM; setsid sleep 1000 & while true; do sleep 0.05; [ -e $VLAUNCH_STORE/second ] && exit 0; done"
    )
    setup = "[ -e $VLAUNCH_STORE/first ] && touch $VLAUNCH_STORE/second; touch $VLAUNCH_STORE/first"
    market = {"max_preemptions": 1, "notice_share": 1.0, "grace_seconds": 0.5}
    trial = Trial(tmp_path, stubborn, setup=setup, **market)
    trial.run.run()
    assert trial.ends() == ["preempted (notice)", "finished"]
    assert processes_of(trial.run.run_id) == []


def test_a_task_that_refuses_is_not_started_again_and_its_sentence_is_the_error(tmp_path: Path) -> None:
    trial = Trial(tmp_path, "echo 'vlaunch: The conversations are empty.'; echo noise; exit 1", max_preemptions=0)
    with pytest.raises(RunError, match=r"^The conversations are empty\.$"):
        trial.run.run()
    assert trial.ends() == ["the task ended with code 1"]


def test_a_task_that_crashes_is_started_again_as_often_as_allowed_and_then_its_last_lines_are_shown(
    tmp_path: Path,
) -> None:
    trial = Trial(tmp_path, "echo segmentation fault; exit 139", max_preemptions=0)
    with pytest.raises(RunError, match=r"code 139. Its last lines:\n(.*\n)*segmentation fault"):
        trial.run.run()
    assert len(trial.ends()) == 2


def test_stopping_once_lets_the_task_save_and_says_how_to_go_on(tmp_path: Path) -> None:
    trial = Trial(tmp_path, COUNT, last=1000, max_preemptions=0)

    def stop_at_three(line: str) -> None:
        trial.said.append(line)
        if line == "3":
            trial.run.stop()

    trial.run.say = stop_at_three
    with pytest.raises(RunError, match=r"go on with: vlaunch train --resume trial-"):
        trial.run.run()
    assert "told to leave" in trial.said
    assert trial.ends() == ["stopped by a person"]
    assert processes_of(trial.run.run_id) == []


def test_a_run_that_reaches_its_budget_saves_stops_and_says_how_to_go_on(tmp_path: Path) -> None:
    # At a dollar an hour, this budget lasts two seconds.
    trial = Trial(tmp_path, COUNT, last=1000, max_preemptions=0, budget=Budget(2 / 3600))
    with pytest.raises(RunError, match=r"the budget of \$0.00 is used up. Raise run_usd in .*train --resume trial-"):
        trial.run.run()
    assert "told to leave" in trial.said
    assert trial.ends() == ["budget of $0.00 used up"]
    assert [r.facts["state"] for r in trial.ledger.records() if r.kind == "ended"] == ["stopped"]


def test_a_run_has_one_launcher(tmp_path: Path) -> None:
    trial = Trial(tmp_path, COUNT, last=1000, max_preemptions=0)
    began = threading.Event()
    trial.run.say = lambda line: began.set() if line == "1" else None

    def run_until_stopped() -> None:
        with contextlib.suppress(RunError):
            trial.run.run()

    thread = threading.Thread(target=run_until_stopped)
    thread.start()
    assert began.wait(20)
    assert alive(trial.folder)
    with pytest.raises(RunError, match="is in use by another vlaunch"):
        Trial(tmp_path, COUNT).run.run()
    trial.run.stop()
    trial.run.stop()
    thread.join()
    assert not alive(trial.folder)


def test_what_a_dead_launcher_left_running_is_ended_by_the_next(tmp_path: Path) -> None:
    trial = Trial(tmp_path, COUNT, last=2, max_preemptions=0)
    orphan = subprocess.Popen(["sleep", "1000"], env={**os.environ, "VLAUNCH_MACHINE": trial.run.run_id})
    trial.run.run()
    assert orphan.wait(5) == -signal.SIGKILL
    assert any("1 processes of a launcher that died" in line for line in trial.said)


def test_the_market_is_the_same_for_the_same_seed_and_mixes_both_kinds_of_preemption() -> None:
    config = LocalConfig(seed=5, max_preemptions=20, notice_share=0.5)
    drawn = list(itertools.islice(fates(config), 21))
    assert drawn == list(itertools.islice(fates(config), 21))
    assert sum(fate.announced for fate in drawn) == 10
    assert drawn[20].life_seconds is None
    assert drawn != list(itertools.islice(fates(LocalConfig(seed=6, max_preemptions=20)), 21))


def test_killing_reaches_processes_in_sessions_of_their_own() -> None:
    marked = {**os.environ, "VLAUNCH_MACHINE": "trial-sessions"}
    script = (
        "import subprocess, time; subprocess.Popen(['sleep', '1000'], start_new_session=True); "
        "print(flush=True); time.sleep(1000)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], env=marked, stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    assert kill_all("trial-sessions") == 2
    parent.wait(5)
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while processes_of("trial-sessions") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes_of("trial-sessions") == []
