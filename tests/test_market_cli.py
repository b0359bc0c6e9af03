"""`vlaunch market` and `vlaunch plan` as a person types them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def vlaunch(*words: str, home: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "launcher", *words], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, env={"VLAUNCH_HOME": str(home), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


@pytest.fixture
def zone(tmp_path: Path) -> Path:
    """A day and a half of a zone that shuts for an hour in every six."""
    path = tmp_path / "us-east-1a.json"
    price = {"price": 1.0, "on_demand_price": 4.0}
    data = ([0] * 30 + [1] * 6) * 6
    path.write_text(json.dumps({"metadata": {"gap_seconds": 600, "price_info": price}, "data": data}))
    return path


JOB = ("--work-hours", "12", "--deadline-hours", "18", "--restart-overhead-minutes", "6")


def test_replay_prints_the_runs_and_their_summary(zone: Path, tmp_path: Path) -> None:
    words = ("market", "replay", str(zone), "--policy", "vlaunch,greedy", *JOB, "--available-when", "0", "--json")
    done = vlaunch(*words, home=tmp_path)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert [(run["market"], run["policy"], run["met_deadline"]) for run in found["runs"]] == [
        (str(zone), "vlaunch", True), (str(zone), "greedy", True),
    ]  # fmt: skip
    wanted = {"usd", "finished_hours", "usd_optimal", "starts", "hours_spot", "hours_on_demand", "hours_idle"}
    assert wanted <= set(found["runs"][0])
    assert [line["late"] for line in found["summary"]] == [0, 0]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((*JOB,), 2, "Say what an entry means with --available-when"),
        (("--available-when", "2", *JOB), 1, "looks like --available-when the wrong way round"),
        (("--available-when", "0", *JOB[:3], "11", *JOB[4:]), 1, "1.10 hours too short even on demand"),
        (("--available-when", "0", *JOB, "--policy", "best"), 1, "There is no policy 'best'"),
        (("--available-when", "0"), 2, "or --serving"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    zone: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = vlaunch("market", "replay", str(zone), *words, home=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert said in " ".join(done.stderr.split())


def test_serving_is_replayed_too(zone: Path, tmp_path: Path) -> None:
    words = ("market", "replay", str(zone), "--serving", "--replicas", "2", "--available-when", "0", "--json")
    (run,) = json.loads(vlaunch(*words, home=tmp_path).stdout)["runs"]
    assert run["availability"] > 0.9
    assert run["usd"] <= run["usd_on_demand"] * 2


def test_offers_with_a_recipe_are_by_dollars_of_the_job(tmp_path: Path) -> None:
    words = ("market", "offers", "--recipe", "vicuna-7b", "--spot", "--json")
    offers = json.loads(vlaunch(*words, home=tmp_path).stdout)["offers"]
    dollars = [offer["job"]["usd"] for offer in offers]
    assert dollars == sorted(dollars)
    assert len({offer["accelerator"] for offer in offers}) > 1


def test_a_plan_as_json_names_prices_and_assumptions(tmp_path: Path) -> None:
    words = ("plan", "vicuna-7b", "--infra", "aws", "--deadline", "40h", "--set", "data.tokens_per_epoch=20000000")
    done = vlaunch(*words, "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    way = json.loads(done.stdout)["ways"][0]
    assert way["chance_in_time"] == 1.0
    assert way["price_source"]
    assert way["assumptions"]


def test_places_of_the_recipe_are_planned_with_and_listed(tmp_path: Path) -> None:
    own = '[[machine.places]]\ninfra = "slurm/lab/preemptible"\nusd_per_hour = 1.5\nspot = true\n\n[train]'
    recipe = tmp_path / "lab.toml"
    recipe.write_text(Path("recipes/vicuna-7b.toml").read_text().replace("[train]", own))
    planned = vlaunch("plan", str(recipe), "--infra", "slurm", "--json", home=tmp_path)
    assert {way["cloud"] for way in json.loads(planned.stdout)["ways"]} == {"slurm"}
    listed = vlaunch("market", "offers", "--recipe", str(recipe), "--cloud", "slurm", "--json", home=tmp_path)
    assert {offer["usd_per_hour"] for offer in json.loads(listed.stdout)["offers"]} == {1.5}
