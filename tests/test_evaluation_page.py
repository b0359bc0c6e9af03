"""The comparison page in a real browser, and the join of scores with what runs cost."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evaluation.answering import file as answers_file
from launcher.ledger import Ledger
from launcher.worth import worth
from tests.judge_server import serving
from tests.test_evaluate import PRICE, Evaluator, plain, quality

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    """Two runs that were trained, answered and judged."""
    evaluator = Evaluator(tmp_path_factory.mktemp("judged"))
    ledger = Ledger(evaluator.folder / "home")
    for run, usd_per_hour in (("tiny-a", 3.0), ("tiny-b", 9.0)):
        facts = {
            "recipe": "tiny",
            "store": str(evaluator.folder / "store"),
            "simulated": True,
            "price_source": "made up",
        }
        ledger.append("run", run, **facts, on_demand_usd_per_hour=20.0)
        ledger.append(
            "machine_started", run, machine=1, place="here", usd_per_hour=usd_per_hour, price_source="made up"
        )
        ledger.append("machine_ended", run, machine=1, reason="finished", preempted=False)
        ledger.append("ended", run, state="finished", why="")
    for name, run, seed in (("before", "tiny-a", 3), ("after", "tiny-b", 5)):
        evaluator.write_answers(name, quality(seed))
        path = answers_file(evaluator.folder, name)
        lines = [json.loads(line) | {"run_id": run} for line in path.read_text().splitlines()]
        lines[0]["text"] += " <script>document.title = 'taken over'</script>"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with serving(plain) as endpoint:
        assert evaluator.judge(endpoint.url, *PRICE).returncode == 0
    done = evaluator.run("report", str(evaluator.folder / "reviews"), "--html", str(evaluator.folder / "page.html"))
    assert done.returncode == 0, done.stderr
    return evaluator


@pytest.fixture
def opened(browser: "Browser", judged: Evaluator) -> "Iterator[Page]":
    page = browser.new_page(viewport={"width": 390, "height": 844})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((judged.folder / "page.html").as_uri())
    yield page
    assert len(asked) == 1, "one self-contained file asks for nothing else"
    page.close()


def test_the_page_holds_totals_bars_and_every_question(opened: "Page", judged: Evaluator) -> None:
    score = judged.score()
    bars = opened.locator("#bars .bar span").all_inner_texts()
    assert bars == [str(score[key]) for key in ("candidate_wins", "ties", "losses")]
    totals = opened.locator("#totals tbody tr").inner_text()
    assert f"{score['candidate_total']:g}" in totals
    assert opened.locator("#count").inner_text() == "80 of 80"
    assert opened.title() == "Which model is better"


def test_filters_leave_what_they_say(opened: "Page", judged: Evaluator) -> None:
    score = judged.score()
    opened.select_option("#outcome", "won")
    assert opened.locator(".question:visible").count() == score["candidate_wins"]
    opened.select_option("#category", "math")
    assert opened.locator(".question:visible").count() == sum(score["outcomes"][str(n)] == "won" for n in (68, 69, 70))
    opened.select_option("#outcome", "")
    opened.fill("#words", "three fair six-sided dice")
    assert opened.locator(".question:visible").count() == 1
    opened.fill("#words", "nothing says this")
    assert opened.locator("#none").is_visible()


def test_a_question_opens_to_both_answers_and_both_reviews_and_fits_a_phone(opened: "Page") -> None:
    question = opened.locator(".question").nth(4)
    question.locator("summary").click()
    assert question.locator(".sides section:visible").count() == 2
    assert question.locator(".review:visible").count() == 2
    assert "quality=" in question.locator(".sides").inner_text()
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390


def test_scores_are_drawn_against_the_dollars_of_training(opened: "Page") -> None:
    assert opened.locator("#dollars circle").count() == 2
    assert "simulated" in opened.locator("#worth").inner_text()


def test_a_run_s_score_stands_beside_what_the_ledger_says_it_cost(judged: Evaluator) -> None:
    from evaluation import reviews

    pairs = reviews.score(reviews.listed([judged.folder / "reviews"]))
    rows = {row.name: row for row in worth(pairs, Ledger(judged.folder / "home"), datetime.datetime.now(datetime.UTC))}
    assert (rows["after"].run_id, rows["before"].run_id) == ("tiny-b", "tiny-a")
    assert rows["after"].mean_score == pytest.approx(sum(quality(5).values()) / 80)
    assert rows["after"].usd_judged == pytest.approx(pairs[0].cost.usd)
    assert all(row.simulated and row.usd_trained is not None for row in rows.values())
    found = json.loads(judged.run("score", str(judged.folder / "reviews"), "--json").stdout)
    assert {row["run_id"] for row in found["runs"]} == {"tiny-a", "tiny-b"}


def test_the_ledger_keeps_what_judging_a_run_cost_and_no_run_changes_by_it(judged: Evaluator) -> None:
    ledger = Ledger(judged.folder / "home")
    (record,) = ledger.evaluations()
    assert record.run_id == "tiny-b"
    assert record.facts["usd"] == pytest.approx(judged.score()["cost"]["usd"])
    assert "given on the command line" in record.facts["price_source"]
    assert [each.kind for each in ledger.runs()["tiny-b"]][-1] == "ended"


def test_the_page_of_published_reviews_shows_the_very_answers_that_were_judged(
    browser: "Browser", tmp_path: Path, shared: Path
) -> None:
    folder = shared / "evaluation"
    target = tmp_path / "published.html"
    sources = ("--questions", str(folder / "blog_questions.jsonl"), "--answers", str(folder / "answers"))
    done = Evaluator(tmp_path).run("report", str(folder / "reviews-7b"), "--html", str(target), *sources)
    assert done.returncode == 0, done.stderr
    page = browser.new_page()
    page.goto(target.as_uri())
    assert page.locator("#count").inner_text() == "320 of 320"
    page.select_option("#comparison", "vicuna-7b against gpt35")
    page.select_option("#category", "math")
    page.locator(".question:visible summary").first.click()
    assert "not at hand" not in page.locator(".question[open]").inner_text()
    page.close()
