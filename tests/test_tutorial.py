"""The tutorial's commands, run as they are written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tutorial.md"


def commands() -> list[str]:
    """Every line after `$ ` in a console block, those that end in a backslash with the next."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    joined = "".join(blocks).replace("\\\n", "")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


@pytest.mark.timeout(900)
def test_the_tutorials_commands_run_as_they_are_written(tmp_path: Path) -> None:
    """In a copy of what git has of this folder, one shell, stopping at the first that fails."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    clone = tmp_path / "vlaunch"
    for name in files.split("\0"):
        if name and (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    (clone / ".venv").symlink_to(Path(sys.prefix))
    script = "set -eu\n" + "".join(f"echo '$ '{shquote(line)}\n{line}\n" for line in commands())
    # The installed package points at the folder it was installed from; the clone's own comes first.
    environment = {**os.environ, "PYTHONPATH": str(clone), "COLUMNS": "100"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "Traceback" not in done.stdout + done.stderr
    assert len(commands()) >= 8


def shquote(line: str) -> str:
    return "'" + line.replace("'", "'\\''") + "'"
