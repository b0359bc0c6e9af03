"""The chat page in a real browser, in front of real gateways, workers and engines that can be killed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.config import ModerationRule
from tests.serving_parts import Parts, key, parts, wait_for_workers

SLOW = "count, itl=60"
"""The engine takes it for 60 ms between tokens."""
PATIENCE_MS = 60_000


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as started:
        yield started


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab that has shown no error of its own."""
    tab = browser.new_page(viewport={"width": 1000, "height": 800})
    tab.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    yield tab
    tab.close()
    assert wrong == []


def plug_in(running: Parts, gateway: str, model: str, count: int = 1) -> None:
    for number in range(count):
        engine = running.engine(f"engine-{model}-{number}")
        running.worker(f"worker-{model}-{number}", (gateway,), engine, models=(f"{model}=dummy",))
    wait_for_workers(gateway, count, model)


def ask(page: Any, text: str, tokens: int = 8) -> None:
    page.click("#settings summary")
    page.fill("#max_tokens", str(tokens))
    page.click("#settings summary")
    page.fill("#text", text)
    page.keyboard.press("Enter")


def counted(tokens: int) -> str:
    return " ".join(f"t{number}" for number in range(tokens))


def answer(page: Any) -> Any:
    return page.locator(".assistant").last


def whole(page: Any, text: str) -> None:
    """The last answer is over and is `text`, to the letter."""
    page.wait_for_selector("#send:visible")
    assert answer(page).inner_text().strip() == text


def opened(page: Any, gateway: str, models: int = 1) -> None:
    page.goto(gateway)
    said = f"{models} model{'' if models == 1 else 's'} ready" if models else "No model is ready yet."
    page.wait_for_selector(f"#live >> text={said}")


def test_a_question_is_answered_as_it_streams_and_the_list_of_models_is_live(running: Parts, page: Any) -> None:
    gateway = running.gateway()
    opened(page, gateway, 0)
    plug_in(running, gateway, "dummy")
    page.wait_for_selector("#live >> text=1 model ready")
    ask(page, SLOW, tokens=40)
    page.wait_for_selector(".assistant.going >> text=t1")
    assert "t39" not in answer(page).inner_text()
    whole(page, counted(40))
    assert page.inner_text(".user") == SLOW
    page.click("#again")
    page.wait_for_selector("#stop:visible")
    whole(page, counted(40))
    assert page.locator(".assistant").count() == 1
    page.click("#clear")
    assert page.locator(".turn").count() == 0


def test_an_answer_is_completed_when_its_worker_is_killed_in_the_middle(running: Parts, page: Any) -> None:
    gateway = running.gateway()
    plug_in(running, gateway, "dummy")
    opened(page, gateway)
    ask(page, SLOW, tokens=50)
    page.wait_for_selector(".assistant.going >> text=t5")
    engine = running.engine("engine-second")
    running.worker("worker-second", (gateway,), engine, models=("dummy=dummy",))
    wait_for_workers(gateway, 2)
    assert "t49" not in answer(page).inner_text()
    running.kill("worker-dummy-0")
    whole(page, counted(50))
    assert page.locator(".failure").count() == 0


def test_stop_keeps_what_was_said(running: Parts, page: Any) -> None:
    gateway = running.gateway()
    plug_in(running, gateway, "dummy")
    opened(page, gateway)
    ask(page, SLOW, tokens=500)
    page.wait_for_selector(".assistant.going >> text=t3")
    page.click("#stop")
    page.wait_for_selector("#send:visible")
    assert answer(page).inner_text().startswith("t0 t1 t2 t3")
    assert page.locator(".failure").count() == 0


def test_two_models_are_compared_without_their_names_until_there_is_a_vote(
    running: Parts, page: Any, tmp_path: Path
) -> None:
    gateway = running.gateway(page_folder=str(tmp_path / "kept"))
    plug_in(running, gateway, "one")
    plug_in(running, gateway, "two")
    opened(page, gateway, 2)
    page.check("#compare")
    ask(page, "count")
    page.wait_for_selector("#votes:visible")
    assert [side.inner_text() for side in page.locator(".side h2").all()] == ["A", "B"]
    assert [side.inner_text().strip() for side in page.locator(".assistant").all()] == [counted(8)] * 2
    page.click("[data-vote=b]")
    page.wait_for_selector("#votes", state="hidden")
    shown = [side.inner_text() for side in page.locator(".side h2").all()]
    assert sorted(name.split(": ")[1] for name in shown) == ["one", "two"]
    (vote,) = [json.loads(line) for line in (tmp_path / "kept" / "votes.jsonl").read_text().splitlines()]
    assert (vote["winner"], [f"{'AB'[i]}: {model}" for i, model in enumerate(vote["models"])]) == ("b", shown)
    assert vote["conversations"] == []  # nobody agreed to have it saved


def test_a_conversation_is_saved_only_with_consent_and_in_the_form_training_reads(
    running: Parts, page: Any, tmp_path: Path
) -> None:
    from train.conversations import read

    gateway = running.gateway(page_folder=str(tmp_path / "kept"))
    plug_in(running, gateway, "dummy")
    opened(page, gateway)
    ask(page, "count")
    whole(page, counted(8))
    assert list((tmp_path / "kept" / "conversations").iterdir()) == []
    page.check("#consent")
    ask(page, "again")
    page.wait_for_selector("#saved >> text=Saved.")
    whole(page, counted(8))
    (kept,) = (tmp_path / "kept" / "conversations").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    assert page.locator(".turn").count() == 4
    assert [turn["content"] for turn in read(kept)[0]][::2] == ["count", "again"]


def test_what_moderation_flags_never_reaches_a_model_and_the_page_says_so(
    running: Parts, page: Any, tmp_path: Path
) -> None:
    (tmp_path / "words").write_text("# not these\nforbidden fruit\n")
    rule = ModerationRule(name="list", kind="words", words=str(tmp_path / "words"), models=("dummy",))
    gateway = running.gateway(moderation=(rule,))
    plug_in(running, gateway, "dummy")
    opened(page, gateway)
    ask(page, "Give me Forbidden \u200b FRUIT!")
    page.wait_for_selector(".failure >> text=the moderation in front of it flagged it")
    assert answer(page).inner_text().count("t0") == 0
    page.click("#clear")
    ask(page, "count")
    whole(page, counted(8))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"moderation": (ModerationRule(name="gone", kind="openai", url="http://127.0.0.1:9/v1/moderations"),)},
         "the moderation in front of it does not answer"),
        ({"keys": (key("me", "right"),)}, "The API key is missing or wrong. It goes into Settings."),
    ],
)  # fmt: skip
def test_a_failure_is_a_plain_sentence(running: Parts, page: Any, settings: dict[str, Any], sentence: str) -> None:
    gateway = running.gateway(**settings)
    if "keys" in settings:
        page.goto(gateway)
        page.wait_for_selector(f"#live >> text={sentence}")
        return
    plug_in(running, gateway, "dummy")
    opened(page, gateway)
    ask(page, "count")
    page.wait_for_selector(f".failure >> text={sentence}")


def test_a_lost_worker_without_another_and_a_gateway_that_is_gone_are_said(running: Parts, page: Any) -> None:
    gateway = running.gateway(queue_seconds=1.0, no_worker_seconds=0.5)
    plug_in(running, gateway, "dummy")
    opened(page, gateway)
    ask(page, SLOW, tokens=500)
    page.wait_for_selector(".assistant.going >> text=t3")
    running.kill("worker-dummy-0")
    page.wait_for_selector(".failure")
    assert answer(page).inner_text().startswith("t0 t1 t2 t3")
    assert re.search(r"machine|ready", page.locator(".failure").inner_text())
    running.kill("gateway")
    page.wait_for_selector("#live >> text=The gateway does not answer")


def test_what_a_model_says_is_never_taken_for_html(running: Parts, page: Any) -> None:
    gateway = running.gateway()
    plug_in(running, gateway, "dummy")
    opened(page, gateway)
    ask(page, "<img src=x onerror=alert(1)> ```js\n<b>x</b>\n```")
    whole(page, counted(8))
    assert page.locator(".user img").count() == 0
    assert page.inner_text(".user pre").strip() == "<b>x</b>"
