"""Cleaning as it works on files: every form and packing, bad input, killed and gone on with, the command."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

from conversations import sources
from conversations.clean import Cleaned, clean
from conversations.output import read_manifest
from conversations.records import Reading
from conversations.rules import Rules
from conversations.schema import parse
from tests import site_pages
from tests.test_clean import chat


def forms() -> dict[str, bytes]:
    """The same two conversations in each form and packing that is read."""
    share = [chat("a", "q1", "a1"), chat("b", "q2", "a2")]
    openai = [
        {"id": "a", "messages": [{"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"}]},
        {"id": "b", "messages": [{"role": "user", "content": [{"type": "text", "text": "q2"}]},
                                 {"role": "assistant", "content": "a2"}]},
    ]  # fmt: skip
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in share)
    return {
        "list.json": json.dumps(share).encode(),
        "indented.json": json.dumps(share, indent=2).encode(),
        "objects.json": "\n".join(json.dumps(each, indent=2) for each in share).encode(),
        "lines.jsonl": lines,
        "openai.json": json.dumps(openai).encode(),
        "utf16.jsonl": lines.decode().encode("utf-16"),
        "bom.jsonl": b"\xef\xbb\xbf" + lines,
        "packed.jsonl.gz": gzip.compress(lines[:60]) + gzip.compress(lines[60:]),
        "packed.json.zst": zstandard.compress(json.dumps(share).encode()),
        "mixed.jsonl": json.dumps(share[0]).encode() + b"\n" + json.dumps(openai[1]).encode(),
    }


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command, as a person gives it."""
    return subprocess.run(
        [sys.executable, "-m", "launcher", "data", *arguments],
        capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip


def test_every_form_and_packing_reads_the_same(tmp_path: Path) -> None:
    for name, data in forms().items():
        (tmp_path / name).write_bytes(data)
        raws = list(Reading(sources.local([str(tmp_path / name)]), 1_000_000))
        read = [parse(raw.data, raw.name) for raw in raws]
        assert [(each.id, [turn.value for turn in each.conversations]) for each in read] == [
            ("a", ["q1", "a1"]), ("b", ["q2", "a2"])
        ], name  # fmt: skip


def test_datasets_of_hugging_face_are_read_by_path(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.Table.from_pylist([chat("a", "q1", "a1"), chat("b", "q2", "a2")])
    folder = tmp_path / "dataset"
    folder.mkdir()
    pq.write_table(rows, folder / "train-00000.parquet")
    with pa.OSFile(str(folder / "data-00000.arrow"), "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows)
    (folder / "dataset_info.json").write_text("{}")
    done = clean(sources.local([str(folder)]), tmp_path / "out.json", tmp_path / "report.jsonl", Rules(), processes=1)
    assert (done.counts.records_in, done.counts.kept, done.counts.merged) == (4, 2, {"same": 2})
    assert [each["id"] for each in json.loads((tmp_path / "out.json").read_text())] == ["a", "b"]


def test_bad_input_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = [chat(f"good{n}", f"question {n}", f"answer {n}") for n in range(6)]
    text = [json.dumps(each) for each in good]
    folder = tmp_path / "in"
    folder.mkdir()
    middle = '{"id": "no quote", "conversations": [{"from": "human", "value": "x}, {"from": "gpt", "value": "y"}]}'
    bomb = json.dumps(chat("bomb", "q", "<div>" * 100_000 + "x"))
    big = json.dumps(chat("big", "q", "x" * 50_000_000))
    (folder / "1-list.json").write_text(f'[{text[0]}, {middle},\n{bomb}, {big}, {text[1]}, 7, {{"a": 1}}]')
    (folder / "2-cut.json").write_text(f"[{text[2]},\n{text[3][:-9]}")
    latin = '{"id": "latin", "conversations": [{"from": "human", "value": "café"}, {"from": "gpt", "value": "x"}]}'
    tool = json.dumps({"id": "tool", "messages": [{"role": "tool", "content": "x"}]})
    brackets = '{"id": "brackets", "conversations": ' + "[" * 100_000
    half = '{"id": "half", "conversations": [{"from": "human", "value": "\\ud83d"}, {"from": "gpt", "value": "x"}]}'
    lines = [latin, tool, brackets, half, text[4], text[5][:30]]
    (folder / "3-lines.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    whole = gzip.compress("\n".join(json.dumps(chat(str(n), f"q {n}", "a")) for n in range(50)).encode())
    (folder / "4-packed.jsonl.gz").write_bytes(whole[:-20])
    (folder / "5-empty.json").write_text("")
    (folder / "notes.txt").write_text("not chats")
    out = tmp_path / "out.jsonl"
    done = run("clean", str(folder), "--out", str(out), "--json", "--processes", "2")
    assert done.returncode == 1
    counts = json.loads(done.stdout)["counts"]
    rows = [json.loads(line) for line in (tmp_path / "out.report.jsonl").read_text().splitlines()]
    unreadable = {row["id"]: row["reason"] for row in rows if row["outcome"] == "unreadable"}
    assert unreadable.pop(next(each for each in unreadable if each.startswith("4-packed"))) == "truncated"
    assert unreadable == {
        "no quote": "not_json", "bomb": "html", "big": "too_large", "1-list-6": "schema", "1-list-7": "schema",
        "good3": "truncated", "latin": "encoding", "tool": "schema", "brackets": "not_json", "half": "encoding",
        "good5": "truncated",
    }  # fmt: skip
    kept = {json.loads(line)["id"] for line in out.read_text().splitlines()}
    assert {"good0", "good1", "good2", "good4"} <= kept
    assert (
        counts["records_in"]
        == len(rows)
        == counts["kept"] + sum(sum(counts[outcome].values()) for outcome in ("merged", "dropped", "unreadable"))
    )
    assert f"{len(unreadable) + 1} of {len(rows)} records could not be read" in done.stderr
    assert "Traceback" not in done.stderr


def dirty(path: Path, count: int) -> None:
    """A dirty set: pages, repeats, errors, broken order and lines, the same for the same count."""
    chance = random.Random(count)
    with path.open("w") as file:
        for number in range(count):
            kind = chance.random()
            answer = site_pages.answer(chance)
            record = chat(f"c{number}", f"Question {number}: {answer[:80]}", site_pages.render(answer))
            if kind < 0.1:
                record = chat(f"d{number}", "Say it again", "The same thing as ever.")
            elif kind < 0.15:
                record["conversations"].insert(0, {"from": "human", "value": "twice"})
            elif kind < 0.2:
                record["conversations"][1]["value"] = "Network error"
            text = json.dumps(record)
            file.write((text[: len(text) // 2] if 0.2 < kind < 0.25 else text) + "\n")


def clean_file(given: Path, folder: Path, processes: int) -> Cleaned:
    return clean(
        sources.local([str(given)]), folder / "out.jsonl", folder / "report.jsonl", Rules(), processes=processes
    )


def test_twice_gives_the_same_bytes_whatever_the_number_of_processes(tmp_path: Path) -> None:
    given = tmp_path / "given.jsonl"
    dirty(given, 300)
    results = []
    for processes in (1, 3):
        folder = tmp_path / str(processes)
        done = clean_file(given, folder, processes)
        counts = done.counts
        others = [sum(each.values()) for each in (counts.merged, counts.dropped, counts.unreadable)]
        assert counts.records_in == 300 == counts.kept + sum(others)
        assert all(others)
        results.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert results[0] == results[1]
    assert set(results[0]) == {"out.jsonl", "out.jsonl.manifest.json", "report.jsonl"}


def test_killed_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    given = tmp_path / "given.jsonl"
    dirty(given, 1500)
    (tmp_path / "whole").mkdir()
    clean_file(given, tmp_path / "whole", 2)
    out = tmp_path / "killed" / "out.jsonl"
    command = [sys.executable, "-m", "launcher", "data", "clean", str(given), "--out", str(out)]
    arguments = ["--report", str(out.with_name("report.jsonl")), "--processes", "1"]
    journal = out.with_name("out.jsonl.work") / "journal.jsonl"
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    # what a kill in the middle of a write leaves
    with (journal.parent / "kept").open("ab") as kept, journal.open("ab") as log:
        kept.write(b'{"id": "half a rec')
        log.write(b"[9999, [1")
    done = clean_file(given, tmp_path / "killed", 2)
    assert 0 < done.resumed_records < 1500
    for name in ("out.jsonl", "out.jsonl.manifest.json", "report.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_rules_do_not_go_on_with_what_was_begun(tmp_path: Path) -> None:
    given = tmp_path / "given.jsonl"
    dirty(given, 200)
    work = tmp_path / "out.jsonl.work"
    work.mkdir()
    (work / "journal.jsonl").write_text("another key\n[100, [0, 0, 0, 0, 0]]\n")
    done = clean_file(given, tmp_path, 1)
    assert (done.resumed_records, done.counts.records_in) == (0, 200)


def test_the_manifest_holds_what_a_file_is_made_of(tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text(json.dumps([chat("a", "q", "a")]))
    clean_file(given, tmp_path, 1)
    manifest = read_manifest(tmp_path / "out.jsonl")
    assert manifest is not None
    assert manifest.sha256 == sources_hash(tmp_path / "out.jsonl")
    assert [(each.name, each.sha256, each.records) for each in manifest.inputs] == [
        (str(given), sources_hash(given), 1)
    ]
    assert manifest.settings["rules"]["duplicates"]["similarity"] == 0.9
    assert manifest.counts["kept"] == manifest.records == 1
    assert manifest.versions["html-to-markdown"]


def sources_hash(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere.json", "--out", "o.jsonl"], 1, "There is nothing at nowhere.json."),
        ([".", "--out", "o.jsonl"], 1, "The folder . holds no chats"),
        (["in.json", "--out", "o.txt"], 1, "should end in .json or .jsonl"),
        (["in.json"], 2, "Name the chats and where they go"),
        (["in.json", "--out", "o.jsonl", "--rules", "no.toml"], 1, "The rules no.toml cannot be read"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(arguments: list[str], code: int, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "in.json").write_text("[]")
    where = tmp_path / "empty" if arguments[0] == "." else tmp_path
    done = run("clean", *arguments, cwd=where)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
