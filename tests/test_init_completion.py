"""A first recipe by five questions, and what the shell completes."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from launcher.cli import vlaunch
from launcher.cli.failures import sentence
from launcher.errors import RecipeError
from launcher.recipe import load
from tests.ledgers import Home

ROOT = Path(__file__).resolve().parent.parent


def test_five_answers_make_a_recipe_that_loads(tmp_path: Path) -> None:
    answers = f"vicuna-13b\n{tmp_path / 'chats.jsonl'}\ngs://mine/runs\nH100:8, A100-80GB:8\n2\n"
    path = tmp_path / "mine.toml"
    done = CliRunner().invoke(vlaunch, ["init", str(path)], input=answers, prog_name="vlaunch")
    assert done.exit_code == 0, done.output
    assert f"vlaunch train {path} --spot --dry-run" in done.output
    named = load(str(path))
    assert named.recipe.model.base == "huggyllama/llama-13b"
    assert named.recipe.machine.accelerators == ["H100:8", "A100-80GB:8"]
    assert (named.recipe.checkpoints.store, named.recipe.train.epochs) == ("gs://mine/runs", 2.0)
    assert list(named.mounts.values()) == [str(tmp_path / "chats.jsonl")]


def test_defaults_alone_make_one_too_and_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    assert CliRunner().invoke(vlaunch, ["init", str(path), "--yes"]).exit_code == 0
    assert load(str(path)).recipe.model == load("vicuna-7b").recipe.model
    before = path.read_text()
    again = CliRunner().invoke(vlaunch, ["init", str(path), "--yes"])
    assert isinstance(again.exception, RecipeError)
    assert "is there already" in str(sentence(again.exception))
    assert path.read_text() == before


def test_an_answer_that_cannot_be_is_the_recipes_own_sentence_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    done = CliRunner().invoke(vlaunch, ["init", str(path)], input="vicuna-7b\n\n\n\nmany\n")
    assert isinstance(done.exception, RecipeError)
    assert "epochs must be a number" in str(done.exception)
    assert not path.exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    done = CliRunner().invoke(vlaunch, ["completion", shell])
    assert done.exit_code == 0, done.output
    assert f"_VLAUNCH_COMPLETE={shell}_complete" in done.output


def test_the_shell_completes_commands_recipes_and_the_runs_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    home.two_machines("vicuna-7b-20261123-aaaaaa")
    home.two_machines("vicuna-13b-20261123-bbbbbb")
    monkeypatch.setenv("VLAUNCH_HOME", str(tmp_path))
    monkeypatch.setenv("_VLAUNCH_COMPLETE", "bash_complete")

    def completed(*words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", " ".join(["vlaunch", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        done = subprocess.run(
            [sys.executable, "-m", "launcher"], cwd=ROOT, capture_output=True, text=True, check=True
        )  # fmt: skip
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert completed("sta") == ["status"]
    assert completed("status", "vicuna-1") == ["vicuna-13b-20261123-bbbbbb"]
    assert completed("cost", "report", "vicuna-") == ["vicuna-13b-20261123-bbbbbb", "vicuna-7b-20261123-aaaaaa"]
    assert "vicuna-7b-16k" in completed("train", "vicuna-7b")
