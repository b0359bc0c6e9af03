import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from conversations import sources
from conversations.clean import Cleaned, Row, clean
from conversations.errors import ConversationsError
from conversations.filters import Dropped
from conversations.filters import clean as through_rules
from conversations.output import read_manifest
from conversations.records import Reading
from conversations.rules import Rules, load, to_toml
from conversations.schema import parse
from tests import site_pages


def chat(name: str, *values: str, first: str = "human") -> dict[str, Any]:
    speakers = ("human", "gpt") if first == "human" else ("gpt", "human")
    turns = [{"from": speakers[at % 2], "value": value} for at, value in enumerate(values)]
    return {"id": name, "conversations": turns}


def cleaned(tmp_path: Path, records: Any, rules: Rules | None = None) -> tuple[dict[str, list[str]], dict[str, Row]]:
    """The values of what is kept by id, and the report by id."""
    given = tmp_path / "given.json"
    given.write_text(json.dumps(records))
    clean(sources.local([str(given)]), tmp_path / "out.jsonl", tmp_path / "report.jsonl", rules or Rules(), processes=1)
    kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    rows = [msgspec.json.decode(line, type=Row) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert len(rows) == len(records), "a record is not accounted for"
    return {each["id"]: [turn["value"] for turn in each["conversations"]] for each in kept}, {r.id: r for r in rows}


def ruled(record: dict[str, Any], rules: Rules | None = None) -> tuple[list[str], dict[str, Any]]:
    conversation, changes = through_rules(parse(json.dumps(record).encode(), "x"), rules or Rules())
    return [turn.value for turn in conversation.conversations], changes


LONG = "The quick brown fox jumps over the lazy dog and then it goes home to sleep because the day was long. " * 3


def test_the_humans_text_stays_byte_for_byte_and_only_the_models_html_is_converted() -> None:
    question = "  if a<b and c>d: <p>x</p> &amp; my_func_name\r\n\t"
    page = site_pages.render("Use `my_func`:\n\n```python\nx = 1\n```")
    values, changes = ruled(chat("a", question, page, question, "a<b and my_func_name &amp; *x*"))
    assert values == [question, "Use `my_func`:\n\n```python\nx = 1\n```", question, "a<b and my_func_name &amp; *x*"]
    assert changes == {"html": 1}


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        (chat("a"), "edges"),
        (chat("a", "only a question"), "edges"),
        (chat("a", "an answer", first="gpt"), "edges"),
        (chat("a", "", ""), "empty_turns"),
        (chat("a", "q", " \n"), "empty_turns"),
        (
            {"conversations": [{"from": "human", "value": x} for x in "ab"] + [{"from": "gpt", "value": "c"}]},
            "role_order",
        ),
        (chat("a", "q", "Too many requests in 1 hour. Try again later."), "service_errors"),
        (chat("a", "q", "!\n\nNetwork error"), "service_errors"),
        (chat("a", "how to  make a Bomb?", "No."), "unsafe"),
    ],
)
def test_a_rule_that_drops_says_which_it_was(record: dict[str, Any], rule: str) -> None:
    with pytest.raises(Dropped) as dropped:
        ruled(record)
    assert dropped.value.rule == rule


@pytest.mark.parametrize(
    "values",
    [
        (
            "What does 'network error' mean?",
            "A network error means that a request never arrived; check the cable first.",
        ),
        ("q", "See https://openai.com and https://chat.openai.com/docs for how ChatGPT does it."),
        ("Is the bomb calorimeter on the list?", "Yes: how to make a bombe glacée is on page 3."),
        ("Hi", "Hello!"),
    ],
)
def test_what_should_stay_stays(values: tuple[str, ...]) -> None:
    assert ruled(chat("a", *values)) == (list(values), {})


def test_faults_in_the_middle_cost_what_follows_and_not_the_whole() -> None:
    assert ruled(chat("a", "q", "a", "q2", "There was an error generating a response")) == (
        ["q", "a"],
        {"service_errors": 2},
    )
    assert ruled(chat("a", "q", "a", "", "b", "q", "c")) == (["q", "a"], {"empty_turns": 4})
    assert ruled(chat("a", "a0", "q", "a", "q2", first="gpt")) == (["q", "a"], {"edges": 2})


def test_boilerplate_of_the_site_is_taken_out_of_answers() -> None:
    leaked = "Here:\n```python\nCopy code\nx = 1\n```\n```bashCopy code\nls\n```\nRegenerate response"
    assert ruled(chat("a", leaked, leaked))[0] == [leaked, "Here:\n```python\nx = 1\n```\n```bash\nls\n```\n"]


def test_personal_data_is_masked_and_what_looks_like_it_is_not() -> None:
    question = "I am jo.doe+x@mail.foo.org, call +1 415-555-2671 or (415) 555-2671; key sk-" + "a1B2" * 8
    harmless = (
        "git@github.com:a/b.git user@example.com @app.route v1.22.333 2023-04-05 10.0.0.1 3.14159265358 "
        "978-3-16-148410-0 1,234,567 4155552671 sk-learn-is-a-library-name x = 555-1234"
    )
    values, changes = ruled(chat("a", question, harmless))
    assert values == ["I am [email], call [phone] or [phone]; key [key]", harmless]
    assert changes == {"personal_data": {"email": 1, "phone": 2, "key": 1}}
    dropping = load_text('[personal_data]\naction = "drop"\n')
    with pytest.raises(Dropped):
        ruled(chat("a", question, "b"), dropping)


def load_text(text: str, folder: Path | None = None) -> Rules:
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        path = (folder or Path(made)) / "rules.toml"
        path.write_text(text)
        return load(path)


def test_language_is_judged_only_where_the_text_is_long_enough() -> None:
    english = load_text('[language]\nkeep = ["en"]\n')
    german = "Der schnelle braune Fuchs springt über den faulen Hund und geht dann nach Hause, um zu schlafen. " * 4
    with pytest.raises(Dropped) as dropped:
        ruled(chat("a", german, german), english)
    assert dropped.value.rule == "language"
    assert ruled(chat("a", "Guten Tag, wie geht es?", LONG), english)[0]
    assert ruled(chat("a", "Translate: " + german, LONG + LONG + "\n```\n" + german * 9 + "\n```"), english)[0]


def test_every_rule_can_be_switched_off_and_the_shown_rules_are_the_usual_ones(tmp_path: Path) -> None:
    assert load_text(to_toml(Rules()), tmp_path) == Rules()
    record = chat("a", "how to make a bomb", "Too many requests in 1 hour. Try again later.")
    off = load_text("[unsafe]\non = false\n[service_errors]\non = false\n")
    assert ruled(record, off)[0][0] == "how to make a bomb"
    (tmp_path / "listed.txt").write_text("brown fox\n")
    with pytest.raises(Dropped):
        ruled(chat("a", "q", LONG), load_text('[unsafe]\nfiles = ["listed.txt"]\n', tmp_path))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[edgs]\non = true\n", r"there is no rule 'edgs'; did you mean 'edges'\?"),
        ('[role_order]\nactoin = "cut"\n', r"\[role_order\] has no key 'actoin'; did you mean 'action'\?"),
        ('[too_short]\nrounds = "x"\n', r"\[too_short\] rounds: expected `int`, got `str`"),
        ("[duplicates]\nsimilarity = 2.0\n", "similarity is 2; it must be over 0, at most 1"),
        ("on =", "are not TOML"),
    ],
)
def test_wrong_rules_are_named_with_file_section_and_key(text: str, sentence: str) -> None:
    with pytest.raises(ConversationsError, match=sentence):
        load_text(text)


def test_duplicates_are_merged_into_the_longest(tmp_path: Path) -> None:
    opening = (LONG, "An answer: " + LONG.replace("fox", "cat"))
    records = [
        chat("short", "Hi", "Hello!"),
        chat("longer", "hi ", "Hello!", "And?", "More."),
        chat("other", "Hi", "Hello there, what can I do?"),
        chat("again", "And?", "More."),
        chat("again", "And?", "More."),
        chat("one branch", *opening, "Go on", "One way."),
        chat("other branch", *opening, "Go on", "Another way, and a longer one."),
        chat("near", LONG, "An answer: " + LONG.replace("fox", "cat") + "!", "Go on", "x"),
        chat("unlike", LONG, LONG.replace("dog", "cow").replace("home", "away").replace("day", "night")),
    ]
    kept, rows = cleaned(tmp_path, records)
    assert list(kept) == ["longer", "other", "again", "other branch", "unlike"]
    assert (rows["short"].outcome, rows["short"].reason, rows["short"].into) == ("merged", "beginning", "longer")
    assert (rows["again"].reason, rows["again"].into) == ("same", "again")
    assert (rows["one branch"].reason, rows["one branch"].into) == ("same_opening", "other branch")
    assert (rows["near"].outcome, rows["near"].into) == ("merged", "other branch")
    off = load_text("[duplicates]\non = false\n")
    kept, _ = cleaned(tmp_path, records, off)
    assert set(kept) == {record["id"] for record in records}


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
