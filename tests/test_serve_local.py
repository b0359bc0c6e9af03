"""A service on this machine as a person brings it up: real engines, a real gateway, replicas that are taken away."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from launcher.serve_local import marks

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 240.0


class Person:
    """Somebody with a home of their own who types commands and watches one service."""

    def __init__(self, home: Path) -> None:
        self.environment = {**os.environ, "VLAUNCH_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "160"}
        self.home = home

    def vlaunch(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments], env=self.environment, cwd=ROOT, capture_output=True,
            text=True, check=False, timeout=PATIENCE_SECONDS,
        )  # fmt: skip

    def service(self) -> str:
        (folder,) = (self.home / "runs").iterdir()
        return folder.name

    def log(self) -> str:
        path = self.home / "runs" / self.service() / "log.txt"
        return path.read_text() if path.exists() else ""

    def wait(self, holds: Callable[[], Any], what: str) -> Any:
        over = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < over:
            if found := holds():
                return found
            time.sleep(0.1)
        raise AssertionError(f"never {what}:\n{self.log()}")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models that a test has made are kept for the next."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def person(tmp_path: Path, models: Path) -> Iterator[Person]:
    somebody = Person(tmp_path / "home")
    shutil.copytree(models, somebody.home / "models")
    yield somebody
    shutil.copytree(somebody.home / "models", models, dirs_exist_ok=True)
    if (somebody.home / "runs").is_dir():
        somebody.vlaunch("down", "--all")


def test_replicas_that_are_taken_away_are_replaced_while_every_answer_comes_whole(person: Person) -> None:
    done = person.vlaunch("serve", "tiny", "--infra", "local", "--port", "0", "--ask", "Who are you?")
    assert done.returncode == 0, done.stdout + done.stderr
    last = re.search(r"(\d+) answers came whole and (\d+) did not, while (\d+) replicas", done.stdout)
    assert last is not None
    assert int(last[1]) > 0
    assert (last[2], last[3]) == ("0", "2")
    assert "(notice, " in done.stdout
    assert "(no notice)" in done.stdout
    service = person.service()
    assert marks(service) == set()
    (run,) = json.loads(person.vlaunch("cost", "report", "--json").stdout)["runs"]
    assert (run["run_id"], run["simulated"], run["preemptions"], run["state"]) == (service, True, 2, "stopped")
    assert len(run["attempts"]) == 4
    assert run["usd_spent"] > 0
    assert not (person.home / "runs" / service / "disks").exists()


def test_a_service_goes_over_to_a_new_model_without_a_failed_request_and_down_leaves_nothing(person: Person) -> None:
    up = ("serve", "tiny", "--infra", "local", "--port", "0", "--replicas", "1", "--set", "local.max_preemptions=0")
    started = person.vlaunch(*up, "--detach")
    assert started.returncode == 0, started.stderr
    service = person.service()
    address = re.search(r"comes up at (http://\S+);", started.stderr)
    assert address is not None
    person.wait(lambda: " ready after " in person.log(), "ready")

    def ask() -> httpx.Response:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
        return httpx.post(f"{address[1]}/v1/chat/completions", json=body, timeout=60)

    assert ask().status_code == 200
    weights = next((person.home / "models").iterdir())
    updated = person.vlaunch("serve", "--update", service, "--model", f"tiny={weights}", "--replicas", "1")
    assert updated.returncode == 0, updated.stderr
    while "gone: replaced by version 2" not in person.log():
        assert ask().status_code == 200, person.log()
    assert ask().status_code == 200
    assert person.vlaunch("status").stdout.count(service) == 1
    refused = person.vlaunch("serve", "--update", service, "--model", f"other={weights}")
    assert refused.returncode == 1
    assert "write --model tiny=SOURCE" in refused.stderr
    down = person.vlaunch("down")
    assert down.stdout == f"{service} is down\n", down.stderr
    assert marks(service) == set()
    assert person.vlaunch("down").stdout == "No service is up.\n"


def test_ctrl_c_ends_a_service_and_what_a_killed_launcher_left_is_ended_by_down(person: Person) -> None:
    command = ["serve", "tiny", "--infra", "local", "--port", "0", "--replicas", "1"]
    first = subprocess.Popen(
        [sys.executable, "-m", "launcher", *command], env=person.environment, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("[local market]"):
            break
    service = person.service()
    assert marks(service) != set()
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=PATIENCE_SECONDS)[0]
    assert first.returncode == 0, said
    assert marks(service) == set()
    second = subprocess.Popen(
        [sys.executable, "-m", "launcher", "serve", "--resume", service], env=person.environment, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert second.stdout is not None
    for line in second.stdout:
        if line.startswith("[local market]"):
            break
    second.kill()
    second.communicate(timeout=PATIENCE_SECONDS)
    assert marks(service) != set()
    assert person.vlaunch("down", service).returncode == 0
    assert marks(service) == set()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("serve", "vicuna7b"), "There is no recipe 'vicuna7b'. Did you mean 'vicuna-7b'?"),
        (("serve", "--infra", "local", "--model", "nothing"), "There is no run 'nothing'"),
        (("serve", "tiny"), "'tiny' is made on this machine only"),
        (("serve", "tiny", "--model", "org/name"), "it is made for --infra local"),
        (("serve", "--update", "nothing"), "There is no run 'nothing'"),
        (("down", "nothing"), "There is no run 'nothing'"),
        (("serve", "vicuna-7b", "--max-price", "0.01"), "at or below $0.01 an hour; the cheapest is $"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_code_1(person: Person, arguments: tuple[str, ...], sentence: str) -> None:
    done = person.vlaunch(*arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cloud_gets_nothing_before_gateway_secrets_and_yes_and_its_refusal_is_a_sentence(person: Person) -> None:
    pytest.importorskip("sky", reason="SkyPilot is not installed (the extra `cloud`)")
    up = ("serve", "vicuna-7b", "--set", "machine.secrets=[]")
    person.environment |= {"SKYPILOT_API_SERVER_ENDPOINT": "http://127.0.0.1:9", "HOME": str(person.home)}
    assert "--gateway https://your-gateway" in person.vlaunch(*up).stderr
    up = (*up, "--gateway", "https://g.example")
    assert "The secrets VLAUNCH_WORKER_TOKEN are not set here" in person.vlaunch(*up).stderr
    person.environment["VLAUNCH_WORKER_TOKEN"] = "do-not-write-me-down"
    asked = person.vlaunch(*up)
    assert "This spends money" in asked.stderr
    assert asked.returncode == 1
    assert not (person.home / "ledger.jsonl").exists()
    refused = person.vlaunch(*up, "--yes")
    assert refused.returncode == 1
    assert "vlaunch: SkyPilot says: " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "do-not-write-me-down" not in (person.home / "ledger.jsonl").read_text() + refused.stdout + refused.stderr


def test_replicas_that_never_get_ready_end_the_service_with_the_engines_words(person: Person, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = person.vlaunch("serve", "tiny", "--infra", "local", "--port", "0", "--model", f"tiny={tmp_path / 'empty'}",
                          "--replicas", "1", "--set", "local.start_seconds=0")  # fmt: skip
    assert done.returncode == 1
    assert "2 replicas in a row ended before they were ready" in done.stderr
    assert 'Traceback (most recent call last):\n  File "' not in done.stderr.split("Of the last one:")[0]
    assert marks(person.service()) == set()
