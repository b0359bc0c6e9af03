"""What the rules of cleaning do to conversations."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conversations import sources
from conversations.clean import Row, clean
from conversations.errors import ConversationsError
from conversations.filters import Dropped
from conversations.filters import clean as through_rules
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
