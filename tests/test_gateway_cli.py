"""`vlaunch gateway` and `vlaunch worker` as a person runs them: what they say when they cannot, and how they stop."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving.config import hashed, load_gateway
from tests.serving_parts import TOKEN, parts, wait_for_workers


def vlaunch(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**{k: v for k, v in os.environ.items() if k != "VLAUNCH_WORKER_TOKEN"}, **variables}
    command = [sys.executable, "-m", "launcher", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 'x'", "Expected `int`, got `str` - at `$.port`"),
        ("prot = 1", "unknown field `prot`"),
        ("port = 70000", "it must be 0 to 65535"),
        ('[[keys]]\nname = "a"\nsha256 = "short"', "not 64 hexadecimal digits"),
        ('[[skyserve]]\nmodel = "m"\nurl = "host:1"', "write MODEL=http://host:port"),
        ("stall_seconds = 0", "it must be above 0"),
        ("not toml", "line 1"),
    ],
)
def test_a_wrong_file_is_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    done = vlaunch("gateway", "--config", str(file))
    assert done.returncode == 1
    assert said in done.stderr
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr


def test_listening_beyond_this_machine_needs_keys() -> None:
    done = vlaunch("gateway", "--host", "0.0.0.0", "--port", "0")
    assert (done.returncode, "--new-key" in done.stderr) == (1, True)


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = vlaunch("gateway", "--port", str(port), VLAUNCH_WORKER_TOKEN=TOKEN)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_new_key_and_its_entry_fit_together(tmp_path: Path) -> None:
    done = vlaunch("gateway", "--new-key", 'the "lab"')
    file = tmp_path / "gateway.toml"
    file.write_text(done.stdout)
    (entry,) = load_gateway(file).keys
    assert entry.name == 'the "lab"'
    assert entry.sha256 == hashed(done.stderr.split()[0])


def test_a_worker_without_a_token_or_with_a_wrong_address_says_so() -> None:
    flags = ("worker", "--model", "m", "--gateway")
    assert "VLAUNCH_WORKER_TOKEN is not set" in vlaunch(*flags, "http://127.0.0.1:1").stderr
    done = vlaunch(*flags, "127.0.0.1:1", VLAUNCH_WORKER_TOKEN=TOKEN)
    assert (done.returncode, "write http://host:port" in done.stderr) == (1, True)


def test_gateway_and_worker_start_by_command_and_stop_when_told(tmp_path: Path) -> None:
    variables = {**os.environ, "VLAUNCH_WORKER_TOKEN": TOKEN}
    with parts(tmp_path) as serving:
        serving.start("gateway", [sys.executable, "-m", "launcher", "gateway", "--port", "0"], variables)
        port = serving.wait_for_log("gateway", r'"gateway listens".*"port":(\d+)').group(1)
        address = f"http://127.0.0.1:{port}"
        flags = ["--gateway", address, "--model", "dummy", "--engine", serving.engine("engine")]
        serving.start("worker", [sys.executable, "-m", "launcher", "worker", *flags], variables)
        wait_for_workers(address, 1)
        for name in ("worker", "gateway"):
            serving.kill(name, signal.SIGTERM)
            assert serving.processes[name].returncode == 0
            assert "Traceback" not in serving.log(name)
