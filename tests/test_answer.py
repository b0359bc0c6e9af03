"""Every command that ends by itself answers in JSON where it is asked to."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from launcher.cli import vlaunch
from tests.test_clean import chat

WITHOUT_JSON = {"gateway", "worker", "completion"}
"""The first two stay, and the third answers to a shell."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from commands(command, (*path, name))
            else:
                yield (*path, name), command


def test_every_command_has_json() -> None:
    lacking = {" ".join(path) for path, each in commands(vlaunch) if not any("--json" in p.opts for p in each.params)}
    assert lacking == WITHOUT_JSON


def answer(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(vlaunch, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_what_was_done_is_said_as_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("chats.jsonl").write_text("".join(json.dumps(chat(f"c{n}", f"q{n}", f"a{n}")) + "\n" for n in range(20)))
    assert answer("init", "--yes") == {"recipe": "recipe.toml", "begun_from": "vicuna-7b"}
    written = answer("data", "identity", "--name", "N", "--org", "O", "--out", "who.jsonl")
    assert written == {"out": "who.jsonl", "conversations": len(Path("who.jsonl").read_text().splitlines())}
    mixed = answer("data", "mix", "chats.jsonl=2", "chats.jsonl=2", "--out", "mixed.jsonl")
    assert mixed == {"out": "mixed.jsonl", "conversations": 80, "of": [["chats.jsonl=2", 40], ["chats.jsonl=2", 40]]}
    assert len(Path("mixed.jsonl").read_text().splitlines()) == 80
    assert answer("data", "sample", "chats.jsonl", "--count", "5", "--out", "few.jsonl")["conversations"] == 5
    parted = answer("data", "train-test", "chats.jsonl", "--share", "0.5", "--train", "a.jsonl", "--test", "b.jsonl")
    for side, name in (("train", "a.jsonl"), ("test", "b.jsonl")):
        assert parted[f"{side}_conversations"] == len(Path(name).read_text().splitlines())
    plugins = str(tmp_path / ".sky" / "plugins.yaml")
    assert answer("plugin", "install")["file"] == plugins
    assert answer("plugin", "uninstall")["installed"] is False
