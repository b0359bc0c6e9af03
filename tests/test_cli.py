"""The command as a person meets it: real processes, what they print, how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from checkpoints import layout
from launcher import recipe
from launcher.local import processes_of

ROOT = Path(__file__).resolve().parent.parent
SECRET = "hf_this_must_never_be_written_down"


class Person:
    """Somebody with a home of their own who types commands."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def environment(self) -> dict[str, str]:
        alone = {"SKYPILOT_API_SERVER_ENDPOINT": "http://127.0.0.1:1"}  # no server, whatever runs on this machine
        ours = {"VLAUNCH_HOME": str(self.home), "HF_TOKEN": SECRET, "COLUMNS": "160", "NO_COLOR": "1"}
        return {**os.environ, **alone, **ours}

    def vlaunch(self, *arguments: str, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments], env=self.environment(), cwd=ROOT,
            capture_output=True, text=True, check=False, timeout=timeout,
        )  # fmt: skip

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "launcher", *arguments], env=self.environment(), cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def report(self, *runs: str) -> list[dict[str, Any]]:
        done = self.vlaunch("cost", "report", *runs, "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
        return found


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path / "home")


def sentence_of(done: "subprocess.CompletedProcess[str]", code: int = 1) -> str:
    """The one sentence a failure ends with."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr.strip().splitlines()[-1]


HERE = ("train", "tiny", "--spot", "--infra", "local")
STEPS = 1200


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "vicuna7b", "--dry-run"), "There is no recipe 'vicuna7b'. Did you mean 'vicuna-7b'?"),
        ((*HERE, "--set", "train.epoch=3"), "[train] has no key 'epoch'. Did you mean 'epochs'?"),
        ((*HERE, "--set", "train.epochs='x'"), "[train] epochs must be a number, not text."),
        ((*HERE, "--set", "model.context_tokens=4096"), "context_tokens is 4096, more than the 512 that tiny reaches"),
        ((*HERE, "--max-price", "1"), "the cheapest is local/here/zone-a at $12.64"),
        ((*HERE, "--zone", "zone-x"), "The recipe has no local zone zone-x."),
        (("train", "--spot", "--max-price", "0.5"), "at or below $0.50 an hour; the cheapest is $"),
        (("train", "--set", "machine.accelerators=['A1000:8']"), "called 'A1000'. Did you mean A100?"),
        (
            ("train", "--spot", "--infra", "aws/mars-1"),
            "There is no offer of A100-80GB:8 or A100:8 on spot in aws/mars-1",
        ),
        (("train", "vicuna-7b", "--infra", "local"), "Take smollm2-135m or tiny"),
        (("train", "tiny"), "it is made for --infra local"),
        (("train", "--resume", "nothing"), "There is no run 'nothing': the ledger"),
        (("cost", "report", "nothing"), "There is no run 'nothing': the ledger"),
        (("logs", "nothing"), "There is no run 'nothing': the ledger"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_code_1(person: Person, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in sentence_of(person.vlaunch(*arguments))
    assert person.vlaunch("status").stdout.startswith("There is no run yet")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tarin",), "There is no command 'tarin'. Did you mean 'train'?"),
        (("cost", "raport"), "There is no command 'raport'. Did you mean 'report'?"),
        (("train", "--sport"), "No such option: --sport"),
        (("train", "--resume", "x", "--dry-run"), "--resume goes on with the run as it was launched"),
        ((*HERE, "--mean-life", "soon"), "'soon' is not a time; write 60s, 2m or 1h."),
    ],
)
def test_wrong_usage_ends_with_code_2(person: Person, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in sentence_of(person.vlaunch(*arguments), code=2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no conversation"),
        ("not json", "line 1, record 1 is not JSON"),
        ('{"conversations": [{"value": "Hi"}]}', "line 1, record 1, turn 1 says not whose it is: 'from' is missing"),
    ],
)
def test_conversations_are_checked_before_a_machine_is_had(
    person: Person, tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "chats.jsonl").write_text(text)
    done = person.vlaunch(*HERE, "--set", f"data.conversations={tmp_path / 'chats.jsonl'}")
    assert sentence in sentence_of(done)
    assert not (person.home / "ledger.jsonl").exists()


def test_a_store_that_cannot_be_written_is_found_before_a_machine_is_had(person: Person, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = person.vlaunch(*HERE, "--set", f"checkpoints.store={tmp_path / 'file'}")
    assert "could not be written" in sentence_of(done)
    assert not (person.home / "ledger.jsonl").exists()


def test_a_home_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    done = Person(tmp_path / "home").vlaunch(*HERE, "--set", f"checkpoints.store={tmp_path / 'store'}")
    assert "set VLAUNCH_HOME" in sentence_of(done)


def test_a_cloud_launch_shows_its_dollars_and_says_what_is_missing_here(person: Person, tmp_path: Path) -> None:
    chats = tmp_path / "chats.jsonl"
    chats.write_text((ROOT / "data" / "identity.jsonl").read_text())
    done = person.vlaunch(
        "train", "--spot", "--set", f"data.conversations={chats}", "--set", f"checkpoints.store={tmp_path / 'store'}"
    )
    assert "vlaunch train --spot --infra local" in sentence_of(done)
    assert "expected: $" in done.stderr
    assert "catalog" in done.stderr


def test_a_dry_run_prints_the_task_alone(person: Person) -> None:
    import yaml

    done = person.vlaunch("train", "--spot", "--dry-run")
    assert done.returncode == 0
    task = yaml.safe_load(done.stdout)
    assert task["resources"]["use_spot"] is True
    assert task["secrets"] == {"HF_TOKEN": None}
    assert SECRET not in done.stdout + done.stderr
    assert not person.home.exists()


@pytest.fixture(scope="module")
def preempted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Person, str, str]:
    """A tiny run that was taken away twice: who ran it, its id, what was printed."""
    person = Person(tmp_path_factory.mktemp("preempted") / "home")
    # The lives drawn are 17 and 13 s; a machine would have to do 60 steps a second to finish before both are over.
    changes = (f"train.max_steps={STEPS}", "train.ask=Hi?", "train.epochs=1000")
    done = person.vlaunch(*HERE, "--mean-life", "9s", *(word for change in changes for word in ("--set", change)))
    assert done.returncode == 0, done.stdout + done.stderr
    run = person.report()[0]["run_id"]
    return person, run, done.stdout


def test_a_run_that_is_taken_away_twice_finishes_and_reports_what_it_cost(preempted: tuple[Person, str, str]) -> None:
    person, run, said = preempted
    found = person.report(run)[0]
    assert (found["state"], found["step"], found["preemptions"], found["simulated"]) == ("finished", STEPS, 2, True)
    assert sorted(attempt["end_reason"] for attempt in found["attempts"]) == [
        "finished", "preempted (no notice)", "preempted (notice)",
    ]  # fmt: skip
    assert len({attempt["zone"] for attempt in found["attempts"]}) == 2
    assert sum(attempt["steps_kept"] for attempt in found["attempts"]) == STEPS
    assert found["usd_spent"] == pytest.approx(sum(attempt["usd"] for attempt in found["attempts"]))
    assert 0 < found["usd_lost_to_preemption"] < found["usd_spent"] < found["usd_on_demand"]
    assert found["usd_saved"] == pytest.approx(found["usd_uninterrupted_on_demand"] - found["usd_spent"])
    assert all("simulated" in attempt["price_source"] for attempt in found["attempts"])
    assert "answered:" in said
    # A notice loses nothing.
    assert [a["steps_lost"] for a in found["attempts"] if a["end_reason"] == "preempted (notice)"] == [0]


def test_what_any_attempt_reported_for_a_step_is_the_same(preempted: tuple[Person, str, str]) -> None:
    person, run, _ = preempted
    losses: dict[int, set[float]] = {}
    for path in (person.home / "store" / run / "metrics").iterdir():
        for line in path.read_text().splitlines():
            fields = json.loads(line)
            losses.setdefault(fields["step"], set()).add(fields["loss"])
    assert set(losses) == set(range(1, STEPS + 1))
    assert all(len(values) == 1 for values in losses.values())
    assert min(losses[STEPS]) < min(losses[1])


def test_the_export_loads_and_answers_in_the_chat_template(preempted: tuple[Person, str, str]) -> None:
    from train.export import answer

    person, run, said = preempted
    folder = person.home / "store" / run / "export"
    assert answer(folder, "Hi?") in said
    assert "generation %}" not in (folder / "chat_template.jinja").read_text()


def test_status_logs_and_the_report_show_the_run(preempted: tuple[Person, str, str]) -> None:
    person, run, said = preempted
    status = person.vlaunch("status").stdout
    assert run in status
    assert f"{STEPS}/{STEPS}" in status
    assert person.vlaunch("logs", run).stdout.splitlines() == [
        line for line in said.splitlines() if not line.startswith(run)
    ]
    lines = [json.loads(line)["line"] for line in person.vlaunch("logs", run, "--json").stdout.splitlines()]
    assert lines == person.vlaunch("logs", run).stdout.splitlines()
    table = person.vlaunch("cost", "report", run).stdout
    assert "all prices are simulated" in table
    for words in ("spent", "the same hours on demand", "an uninterrupted on-demand run", "saved", "lost to preemption"):
        assert words in table


def test_a_secret_of_the_environment_is_in_no_file(preempted: tuple[Person, str, str]) -> None:
    person, _, said = preempted
    assert SECRET not in said
    files = [path for path in person.home.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_a_finished_run_is_not_begun_again(preempted: tuple[Person, str, str]) -> None:
    person, run, _ = preempted
    assert "has finished" in sentence_of(person.vlaunch("train", "--resume", run))


def test_a_run_is_not_continued_with_another_recipe(preempted: tuple[Person, str, str]) -> None:
    person, run, _ = preempted
    variables = {
        "VLAUNCH_RECIPE": recipe.load("tiny").text,
        "VLAUNCH_RUN": run,
        "VLAUNCH_STORE": str(person.home / "store"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "train"],
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("vlaunch: The run at ")
    assert "was begun with another recipe" in done.stdout


LONG = (*HERE, "--set", "local.max_preemptions=0", "--set", "train.max_steps=5000", "--set", "train.epochs=2000")


def wait_for(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


def committed(person: Person) -> int:
    names = [path.relative_to(run).as_posix() for run in (person.home / "store").glob("*") for path in run.rglob("*")]
    return max((checkpoint.step for checkpoint in layout.committed(names)), default=0)


def test_a_run_whose_launcher_died_is_continued_and_ctrl_c_leaves_with_a_checkpoint(person: Person) -> None:
    launcher = person.start(*LONG)
    wait_for(lambda: committed(person) > 0, "a checkpoint")
    launcher.kill()
    launcher.communicate()
    run = person.report()[0]["run_id"]
    assert person.report()[0]["state"] == "launcher died"

    resumed = person.start("train", "--resume", run)
    before = committed(person)
    wait_for(lambda: committed(person) > before + 20, "the resumed run to get on")
    resumed.send_signal(signal.SIGINT)
    said, _ = resumed.communicate(timeout=60)
    assert resumed.returncode == 1
    assert said.strip().splitlines()[-1].endswith(f"go on with: vlaunch train --resume {run}")
    assert "resumed from the checkpoint of step" in said
    assert "told to leave" in said
    found = person.report()[0]
    assert (found["state"], found["step"]) == ("stopped", committed(person))
    assert found["attempts"][-1]["steps_lost"] == 0
    assert processes_of(run) == []


def test_a_detached_run_goes_on_and_its_log_is_followed_to_the_end(person: Person) -> None:
    done = person.vlaunch(*HERE, "--detach", "--json", "--set", "local.max_preemptions=0")
    run = json.loads(done.stdout)["run_id"]
    wait_for(lambda: (person.home / "runs" / run / "log.txt").exists(), "the detached run")
    assert "is in use by another vlaunch" in sentence_of(person.vlaunch("train", "--resume", run))
    said = person.vlaunch("logs", run, "--follow").stdout
    assert "step 20/20" in said
    wait_for(lambda: person.report(run)[0]["state"] == "finished", "its end")


def test_a_disk_that_fills_up_in_training_is_a_sentence_and_what_was_committed_stays(
    person: Person, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting a small disk needs root on a machine that allows it")
    try:
        done = person.vlaunch(
            *LONG,
            "--set",
            f"checkpoints.store={disk}",
            "--set",
            "checkpoints.keep=9",
            "--set",
            "checkpoints.every_seconds=0.3",
        )
        assert "no space is left on its disk" in sentence_of(done)
        run = next(path for path in disk.iterdir())
        names = [path.relative_to(run).as_posix() for path in run.rglob("*")]
        assert layout.committed(names) != []
    finally:
        subprocess.run(["umount", disk], check=True)
