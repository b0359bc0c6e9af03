import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conversations import select, sources
from conversations.errors import ConversationsError
from conversations.inspect import inspect, page
from conversations.output import manifest_path, read_manifest
from launcher.cli import vlaunch
from train import conversations as trainers
from train.errors import TrainError


def written(path: Path, names: list[str], **extra: Any) -> Path:
    """A file of conversations with those ids."""
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    lines = [json.dumps({"id": name, "conversations": turns, **extra}) for name in names]
    path.write_text("\n".join(lines) + "\n")
    return path


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def given(*paths: Path) -> list[sources.Source]:
    return sources.local([str(path) for path in paths])


def test_a_conversation_stays_on_its_side_when_the_data_grows(tmp_path: Path) -> None:
    small, grown = [f"c{n}" for n in range(300)], [f"c{n}" for n in range(0, 900)]
    sides = []
    for number, names in enumerate((small, list(reversed(grown)))):
        files = tmp_path / f"train{number}.jsonl", tmp_path / f"test{number}.jsonl"
        counts = select.train_test(given(written(tmp_path / "in.jsonl", names)), *files, share=0.2)
        assert counts == (len(ids(files[0])), len(ids(files[1])))
        assert sorted(ids(files[0]) + ids(files[1])) == sorted(names)
        assert 0.1 < counts[1] / len(names) < 0.3
        sides.append((set(ids(files[0])), set(ids(files[1]))))
    assert sides[0][0] <= sides[1][0]
    assert sides[0][1] <= sides[1][1]


def test_the_pieces_of_one_conversation_are_on_one_side(tmp_path: Path) -> None:
    for name in "abcdefgh":
        data = written(tmp_path / "in.jsonl", [f"{name}_{n}" for n in range(20)], source=name)
        counts = select.train_test(given(data), tmp_path / "train.jsonl", tmp_path / "test.jsonl", share=0.5)
        assert 0 in counts


def test_a_sample_is_the_same_each_time_and_in_order(tmp_path: Path) -> None:
    data = written(tmp_path / "in.jsonl", [f"c{n:03}" for n in range(200)])
    for name in ("one.jsonl", "two.jsonl"):
        assert select.sample(given(data), tmp_path / name, count=20) == 20
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert ids(tmp_path / "one.jsonl") == sorted(ids(tmp_path / "one.jsonl"))
    assert select.sample(given(data), tmp_path / "all.jsonl", count=999) == 200


def test_a_mixture_takes_each_set_as_often_as_its_weight(tmp_path: Path) -> None:
    half = written(tmp_path / "half.jsonl", [f"h{n}" for n in range(400)])
    twice = written(tmp_path / "twice.jsonl", ["t1", "t2"])
    counts = select.mix([(given(half), 0.5), (given(twice), 2.0)], tmp_path / "out.jsonl")
    assert counts[1] == 4
    assert 140 < counts[0] < 260
    assert ids(tmp_path / "out.jsonl")[-4:] == ["t1", "t1", "t2", "t2"]
    manifest = read_manifest(tmp_path / "out.jsonl")
    assert manifest is not None
    assert [each.name for each in manifest.inputs] == [str(half), str(twice)]


def test_identity_conversations_say_name_and_maker_and_can_be_trained_on(tmp_path: Path) -> None:
    out = tmp_path / "identity.jsonl"
    count = select.identity("Sprout", "the garden", out)
    messages = trainers.read(out)
    assert len(messages) == count > 50
    assert all("Sprout" in each[1]["content"] or "the garden" in each[1]["content"] for each in messages)
    select.identity("Sprout", "the garden", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()


def test_a_broken_record_stops_what_must_be_sound(tmp_path: Path) -> None:
    data = written(tmp_path / "in.jsonl", ["a"])
    data.write_text(data.read_text() + '{"id": "b"}\n')
    with pytest.raises(ConversationsError, match=r"line 2 cannot be used .*clean it first"):
        select.sample(given(data), tmp_path / "out.jsonl", count=5)
    assert not (tmp_path / "out.jsonl").exists()


def test_inspect_counts_and_shows_what_was_removed(tmp_path: Path) -> None:
    raw = written(tmp_path / "raw.jsonl", ["a", "b<script>"])
    cleaned = tmp_path / "clean.jsonl"
    runner = CliRunner()
    assert runner.invoke(vlaunch, ["data", "clean", str(raw), "--out", str(cleaned)]).exit_code == 0
    facts = inspect(given(cleaned), None, cleaned)
    assert (facts.conversations, facts.turns, facts.characters, facts.tokens) == (1, 2, 2, None)
    assert facts.turns_a_conversation == {2: 1}
    assert facts.removed["merged"] == {"same": 1}
    assert "merged: same" in page(facts, "t")
    shown = runner.invoke(vlaunch, ["data", "inspect", str(raw), "--html", str(tmp_path / "page.html")])
    assert shown.exit_code == 0
    assert "2 conversations, 4 turns" in shown.output
    assert "b&lt;script&gt;" in (tmp_path / "page.html").read_text()
    assert json.loads(runner.invoke(vlaunch, ["data", "inspect", str(raw), "--json"]).output)["turns"] == 4


def test_the_trainer_refuses_data_that_does_not_match_its_manifest(tmp_path: Path) -> None:
    out = tmp_path / "identity.jsonl"
    select.identity("Sprout", "the garden", out)
    assert trainers.check_manifest(out) == manifest_path(out).read_bytes()
    out.write_text(out.read_text().replace("Sprout", "Sprig"))
    with pytest.raises(TrainError, match=r"is not what its manifest says .*vlaunch data made it"):
        trainers.read(out)
    manifest_path(out).write_text("{}")
    with pytest.raises(TrainError, match="is not a manifest"):
        trainers.read(out)
    manifest_path(out).unlink()
    assert trainers.read(out)


def test_train_takes_made_data_and_asks_before_it_cleans_raw_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLAUNCH_HOME", str(tmp_path / "home"))
    runner = CliRunner()
    command = ["train", "tiny", "--infra", "local", "--dry-run", "--data"]
    made = tmp_path / "made.jsonl"
    select.identity("Sprout", "the garden", made)
    done = runner.invoke(vlaunch, [*command, str(made)])
    assert done.exit_code == 0
    assert f"{made.name}.manifest.json" in done.output
    raw = written(tmp_path / "raw.jsonl", ["a"])
    refused = runner.invoke(vlaunch, [*command, str(raw)], input="n\n")
    assert refused.exit_code == 2
    assert "vlaunch data clean" in refused.output
    accepted = runner.invoke(vlaunch, [*command, str(raw)], input="y\n")
    assert accepted.exit_code == 0
    assert ids(tmp_path / "home" / "data" / "raw.clean.jsonl") == ["a"]
