"""Answering and judging as a person meets them: real processes against endpoints of the test's own."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evaluation import sets
from evaluation.answering import file as answers_file
from tests.judge_server import Endpoint, Said, serving

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-this-must-never-be-shown"
PRICE = ("--price", "10", "20")


class Evaluator:
    """Somebody with a folder who types `vlaunch evaluate`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "VLAUNCH_HOME": str(folder / "home"),
            "OPENAI_API_KEY": KEY,
            "COLUMNS": "160",
            "NO_COLOR": "1",
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "launcher", "evaluate", *arguments]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            self.command(*arguments), env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        assert KEY not in done.stdout + done.stderr
        return done

    def answer(self, model: str, name: str, *more: str) -> "subprocess.CompletedProcess[str]":
        return self.run("answer", "--model", model, "--name", name, "--folder", str(self.folder), *more)

    def judge_arguments(self, url: str, *more: str) -> tuple[str, ...]:
        names = ("--baseline", "before", "--candidate", "after", "--judge", "a-judge", "--judge-url", url)
        return ("judge", *names, "--folder", str(self.folder), "--yes", *more)

    def judge(self, url: str, *more: str) -> "subprocess.CompletedProcess[str]":
        return self.run(*self.judge_arguments(url, *more))

    def score(self) -> dict[str, Any]:
        done = self.run("score", str(self.folder / "reviews"), "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)["pairs"][0]
        return found

    @property
    def reviews(self) -> list[dict[str, Any]]:
        path = self.folder / "reviews" / "review_before_after.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def calls(self) -> list[dict[str, Any]]:
        path = self.folder / "reviews" / "review_before_after.jsonl.asked"
        return [json.loads(line) for line in path.read_text().splitlines()]

    @property
    def call_ids(self) -> set[str]:
        return {review["call_id"] for review in self.reviews}

    def write_answers(self, name: str, quality: dict[int, int], questions: Path | None = None) -> None:
        """Answers whose quality the judge of these tests can see."""
        path = answers_file(self.folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        asked = sets.load(questions)
        lines = [
            {"question_id": q.question_id, "text": f"quality={quality[int(q.question_id)]}.", "name": name}
            | {"question_set": asked.mark, "answer_id": f"{name}-{q.question_id}"}
            for q in asked.questions
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def evaluator(tmp_path: Path) -> Evaluator:
    return Evaluator(tmp_path)


def sentence_of(done: "subprocess.CompletedProcess[str]", code: int = 1) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr.strip().splitlines()[-1]


def true_scores(request: dict[str, Any]) -> tuple[int, int]:
    first, second = re.findall(r"quality=(\d+)\.", request["messages"][1]["content"])
    return int(first), int(second)


def plain(request: dict[str, Any], times: int) -> Said:
    first, second = true_scores(request)
    return Said(f"{first} {second}\nBoth assistants answered the question, in 2 of 3 parts.")


def like_real_ones(request: dict[str, Any], times: int) -> Said:
    """Right, odd, empty, rate-limited, cut: which is drawn from the question, so that every run is the same."""
    first, second = true_scores(request)
    kind = sum(map(ord, request["messages"][1]["content"])) % 8
    again = len(request["messages"]) > 2
    if kind == 1 and times == 1:
        return Said("slow down", status=429, headers={"retry-after": "0.05"})
    if kind == 2 and not again:
        return Said("Both answers are good, and it is hard to prefer one of the two in 2026.")
    if kind == 3 and times == 1:
        return Said("")
    if kind == 4 and request["max_tokens"] == 1024:
        return Said(
            "First, I will solve the problem independently: f(2) = 39, and Assistant 1: 9", finish_reason="length"
        )
    if kind == 5:
        return Said(
            f"First, f(2) = 39.\n\nScores:\nAssistant 2: {second}/10\nAssistant 1: {first}/10\n\nAs said.", seconds=0.01
        )
    return Said(f"{first} {second}\nAssistant 1 gave 3 reasons and Assistant 2 gave 10.", seconds=0.02)


def quality(seed: int) -> dict[int, int]:
    return {number: 2 + (number * seed) % 7 for number in range(1, 81)}


def test_answers_are_asked_several_at_once_and_only_what_is_missing_is_asked_again(evaluator: Evaluator) -> None:
    def model(request: dict[str, Any], times: int) -> Said:
        if "piano tuners" in request["messages"][0]["content"] and times == 1:
            return Said("too long for me", status=400)
        return Said(f"An answer to {request['messages'][-1]['content'][:20]}", seconds=0.02)

    with serving(model) as endpoint:
        first = evaluator.answer(endpoint.url, "before", "--at-once", "8", "--json")
        assert "Questions 44 are not answered" in sentence_of(first)
        second = evaluator.answer(endpoint.url, "before", "--at-once", "8", "--json")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout) | {"file": ""} == {
        "file": "", "name": "before", "questions": 80, "new": 1, "cut": 0, "empty": 0,
    }  # fmt: skip
    assert endpoint.most_at_once > 1
    assert sum(endpoint.seen.values()) == 81
    kept = [json.loads(line) for line in answers_file(evaluator.folder, "before").read_text().splitlines()]
    assert kept[0]["parameters"] == {"temperature": 0.7, "max_tokens": 1024, "seed": 0}
    assert kept[0]["model"] == "the-model"


def test_a_question_of_several_turns_is_a_conversation(evaluator: Evaluator, tmp_path: Path) -> None:
    questions = tmp_path / "two.jsonl"
    questions.write_text(json.dumps({"question_id": "a", "category": "x", "turns": ["Name a bird.", "And another?"]}))

    def model(request: dict[str, Any], times: int) -> Said:
        return Said(f"reply {len(request['messages'])}")

    def judge(request: dict[str, Any], times: int) -> Said:
        assert (
            "Person: Name a bird.\nAssistant: reply 1\n\nPerson: And another?\nAssistant: reply 3"
            in (request["messages"][1]["content"])
        )
        return Said("7 7\nThe same.")

    with serving(model) as endpoint, serving(judge) as judging:
        for name in ("before", "after"):
            assert evaluator.answer(endpoint.url, name, "--questions", str(questions)).returncode == 0
        done = evaluator.judge(judging.url, *PRICE, "--questions", str(questions))
    assert done.returncode == 0, done.stderr
    assert evaluator.score()["ties"] == 1


def test_a_judge_like_real_ones_is_killed_three_times_and_no_question_is_judged_twice(evaluator: Evaluator) -> None:
    evaluator.write_answers("before", quality(3))
    evaluator.write_answers("after", quality(5))
    with serving(like_real_ones) as endpoint:
        arguments = evaluator.judge_arguments(endpoint.url, *PRICE, "--at-once", "4", "--json")
        for share in (30, 80, 130):
            kill_at(evaluator, arguments, share)
        done = evaluator.run(*arguments)
        once_more = evaluator.run(*arguments)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert json.loads(once_more.stdout) | {"new": 0} == told | {"new": 0}

    judged = Counter((review["question_id"], tuple(review["shown"]), review["attempt"]) for review in evaluator.reviews)
    assert set(judged.values()) == {1}
    readable = Counter((r["question_id"], tuple(r["shown"])) for r in evaluator.reviews if r.get("score"))
    assert len(readable) == 160
    assert set(readable.values()) == {1}
    found = evaluator.score()
    assert (found["scored"], found["unreadable"]) == (80, 0)
    assert found["asked_again"] > 0
    assert found["baseline_total"] == sum(quality(3).values())
    assert found["candidate_total"] == sum(quality(5).values())
    right_dollars(evaluator, endpoint, told)


def kill_at(evaluator: Evaluator, arguments: tuple[str, ...], reviews: int) -> None:
    """Begin, and SIGKILL when so many reviews are kept."""
    judge = subprocess.Popen(
        evaluator.command(*arguments), env=evaluator.environment, cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    path = evaluator.folder / "reviews" / "review_before_after.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < reviews:
        assert judge.poll() is None
        time.sleep(0.005)
    judge.kill()
    judge.wait()


def right_dollars(evaluator: Evaluator, endpoint: Endpoint, told: dict[str, Any]) -> None:
    """Of the reviews kept to the cent; of the calls lost with a killed process, never too few."""

    def usd(read: int, written: int) -> float:
        return (read * 10 + written * 20) / 1e6

    kept = sum(usd(review["usage"]["input_tokens"], review["usage"]["output_tokens"]) for review in evaluator.reviews)
    assert told["usd"] == pytest.approx(kept + told["usd_lost_at_most"])
    assert told["usd"] >= sum(usd(read, written) for _, read, written in endpoint.answered)
    assert evaluator.score()["cost"]["usd"] == pytest.approx(kept)
    calls = {call["call_id"]: call for call in evaluator.calls}
    lost = [call for call in calls.values() if call["usd_at_most"] and call["call_id"] not in evaluator.call_ids]
    assert len(endpoint.answered) - len(evaluator.reviews) <= len(lost) <= 3 * 4


def test_swapping_orders_takes_out_a_point_that_the_judge_adds_to_the_first(evaluator: Evaluator) -> None:
    def biased(request: dict[str, Any], times: int) -> Said:
        first, second = true_scores(request)
        return Said(f"{first + 1} {second}\nThe first one came first.")

    before, after = quality(3), quality(5)
    evaluator.write_answers("before", before)
    evaluator.write_answers("after", after)
    wins = sum(after[number] > before[number] for number in before)
    with serving(biased) as endpoint:
        assert evaluator.judge(endpoint.url, *PRICE, "--no-swap").returncode == 0
        one = evaluator.score()
        assert evaluator.judge(endpoint.url, *PRICE).returncode == 0
        both = evaluator.score()
    assert one["position_bias"] is None
    assert one["baseline_total"] - one["candidate_total"] == sum(before.values()) - sum(after.values()) + 80
    assert one["candidate_wins"] < wins
    assert both["position_bias"] == 1
    assert both["baseline_total"] - both["candidate_total"] == sum(before.values()) - sum(after.values())
    assert both["candidate_wins"] == wins
    assert sum(endpoint.seen.values()) == 160


def test_answers_can_be_judged_alone(evaluator: Evaluator) -> None:
    def alone(request: dict[str, Any], times: int) -> Said:
        (points,) = re.findall(r"quality=(\d+)\.", request["messages"][1]["content"])
        return Said(f"{points}\nIt names 3 reasons.")

    evaluator.write_answers("before", quality(3))
    evaluator.write_answers("after", quality(5))
    with serving(alone) as endpoint:
        done = evaluator.judge(endpoint.url, *PRICE, "--mode", "single")
    assert done.returncode == 0, done.stderr
    found = evaluator.run("score", str(evaluator.folder / "reviews" / "single"), "--json")
    pair = json.loads(found.stdout)["pairs"][0]
    assert (pair["mode"], pair["baseline_total"]) == ("single", sum(quality(3).values()))


def test_a_budget_is_kept_to_the_cent_and_raising_it_goes_on(evaluator: Evaluator) -> None:
    evaluator.write_answers("before", quality(3))
    evaluator.write_answers("after", quality(5))
    with serving(plain) as endpoint:
        stopped = evaluator.judge(endpoint.url, *PRICE, "--budget", "0.2", "--at-once", "8")
        spent = sum((read * 10 + written * 20) / 1e6 for _, read, written in endpoint.answered)
        kept = len(evaluator.reviews)
        assert "The budget of $0.20 is reached" in sentence_of(stopped)
        assert 0.1 < spent <= 0.2
        assert kept == len(endpoint.answered) < 160
        assert evaluator.judge(endpoint.url, *PRICE, "--budget", "10").returncode == 0
    assert len(evaluator.reviews) == len(endpoint.answered) == 160


def test_what_judging_costs_is_said_before_it_is_asked(evaluator: Evaluator) -> None:
    evaluator.write_answers("before", quality(3))
    evaluator.write_answers("after", quality(5))
    with serving(plain) as endpoint:
        arguments = [each for each in evaluator.judge_arguments(endpoint.url) if each != "--yes"]
        unknown = evaluator.run(*arguments)
        priced = json.loads(evaluator.run(*arguments, *PRICE, "--dry-run", "--json").stdout)
        refused = evaluator.run(*arguments, "--budget", "1")
    assert "the price of a-judge is; --price IN OUT says it" in unknown.stderr
    assert unknown.returncode == 1
    assert not endpoint.seen
    assert priced["calls"] == 160
    assert priced["usd"][0] < priced["usd"][1] < priced["usd_at_most"]
    assert "given on the command line" in priced["price_source"]
    assert "no budget can be kept" in sentence_of(refused, 2)


def test_an_endpoint_without_usage_is_counted_with_the_most_it_can_have_cost(evaluator: Evaluator) -> None:
    evaluator.write_answers("before", quality(3))
    evaluator.write_answers("after", quality(5))
    with serving(lambda request, times: Said("7 8\nFine.", usage=False)) as endpoint:
        done = evaluator.judge(endpoint.url, *PRICE, "--limit", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert [review["usage"]["stated"] for review in evaluator.reviews] == [False] * 4
    assert json.loads(done.stdout)["usd"] > 4 * 1024 * 20 / 1e6


def test_a_reply_that_is_never_readable_is_asked_twice_and_listed(evaluator: Evaluator) -> None:
    evaluator.write_answers("before", quality(3))
    evaluator.write_answers("after", quality(5))
    with serving(lambda request, times: Said("Both are good.")) as endpoint:
        for _ in range(2):
            done = evaluator.judge(endpoint.url, *PRICE, "--limit", "1")
            assert "2 reviews, 2 of them unreadable" in done.stdout
    assert sum(endpoint.seen.values()) == 4
    found = evaluator.score()
    assert (found["scored"], found["unreadable"], found["reviews"]) == (0, 2, 2)
    assert found["ratio"] is None


def test_an_endpoint_that_dies_loses_nothing(evaluator: Evaluator) -> None:
    evaluator.write_answers("before", quality(3))
    evaluator.write_answers("after", quality(5))
    with serving(plain) as endpoint:
        assert evaluator.judge(endpoint.url, *PRICE, "--limit", "3").returncode == 0
        url = endpoint.url
    dead = evaluator.judge(url, *PRICE)
    assert "cannot be reached (ConnectError). Everything so far is kept" in sentence_of(dead)
    assert len(evaluator.reviews) == 6


def test_a_wrong_key_is_a_sentence_without_the_key(evaluator: Evaluator) -> None:
    evaluator.write_answers("before", quality(3))
    evaluator.write_answers("after", quality(5))
    with serving(lambda request, times: Said(f"Incorrect API key {KEY}", status=401)) as endpoint:
        done = evaluator.judge(endpoint.url, *PRICE)
        assert "refuses the key (401); the variable OPENAI_API_KEY is wrong" in sentence_of(done)
    with serving(lambda request, times: Said(f"no such model for {KEY}", status=404)) as endpoint:
        done = evaluator.judge(endpoint.url.replace("//", "//me:secret@"), *PRICE)
        assert "refuses with 404" in sentence_of(done)
        assert "secret" not in done.stderr


def test_bad_input_is_one_sentence(evaluator: Evaluator, tmp_path: Path) -> None:
    evaluator.write_answers("before", quality(3))
    here = "http://127.0.0.1:9"
    assert "There are no answers of after" in sentence_of(evaluator.judge(here, *PRICE))

    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"question_id": n, "text": f"What is {n}?"}) + "\n" for n in range(1, 81)))
    evaluator.write_answers("after", quality(5), other)
    assert "after answered the question set other-" in sentence_of(evaluator.judge(here, *PRICE))

    evaluator.write_answers("after", quality(5))
    path = answers_file(evaluator.folder, "after")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:70]))
    assert "after has no answer to questions 71, 72" in sentence_of(evaluator.judge(here, *PRICE))
    path.write_text("".join([*lines, lines[0]]))
    assert "has question 1 twice" in sentence_of(evaluator.judge(here, *PRICE))

    other.write_text(other.read_text() + json.dumps({"question_id": 1, "text": "Again?"}) + "\n")
    assert "has question 1 twice" in sentence_of(evaluator.answer(here, "x", "--questions", str(other)))
    assert "cannot be read: No such file" in sentence_of(evaluator.answer(here, "x", "--questions", "nowhere.jsonl"))
    assert "There is no run 'nothing'" in sentence_of(evaluator.answer("nothing", "x"))
    assert "is not a model" in sentence_of(evaluator.answer(str(tmp_path), "x"))
    assert "cannot name a model's answers" in sentence_of(evaluator.answer(here, "../x"))


def test_two_writers_never_share_a_file(evaluator: Evaluator) -> None:
    evaluator.write_answers("before", quality(3))
    evaluator.write_answers("after", quality(5))
    with serving(lambda request, times: Said("7 8\nFine.", seconds=0.2)) as endpoint:
        first = subprocess.Popen(
            evaluator.command(*evaluator.judge_arguments(endpoint.url, *PRICE)), env=evaluator.environment, cwd=ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not evaluator.reviews:
            assert first.poll() is None
            time.sleep(0.02)
        second = evaluator.judge(endpoint.url, *PRICE)
        first.kill()
        first.wait()
    assert "is being written by another vlaunch" in sentence_of(second)
