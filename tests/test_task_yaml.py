"""Rendering, and SkyPilot's own word on it. The golden files are task_yamls/ themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher import launch, recipe, yamls
from tests.sky_tasks import accepted
from train.config import MACHINE_LIFE, read_recipe

ROOT = Path(__file__).resolve().parent.parent
CLOUD = [name for name in recipe.names() if recipe.load(name).recipe.machine.accelerators]


def prepared(name: str, *changes: str, infra: str | None = None, **choices: Any) -> launch.Prepared:
    settings: dict[str, Any] = {"spot": True, "zones": (), "max_price": None, "run_id": f"{name}-20261123-abcdef"}
    return launch.prepare(recipe.load(name, changes), infra=infra, **(settings | choices))


def test_the_committed_tasks_are_what_the_recipes_render_to() -> None:
    assert yamls.rendered() == {path.name: path.read_text() for path in (ROOT / "task_yamls").glob("*.yaml")}
    assert {f"{name}.yaml" for name in CLOUD} == set(yamls.rendered()) - set(yamls.services()) - {"gateway.yaml"}


def test_rendering_twice_in_other_processes_gives_the_same_bytes() -> None:
    code = "from launcher import yamls; import sys; sys.stdout.write(''.join(yamls.rendered().values()))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


@pytest.mark.filterwarnings("ignore")  # SkyPilot's own, at import
@pytest.mark.parametrize("name", CLOUD)
def test_every_committed_task_passes_skypilots_schema_and_task(name: str) -> None:
    task = accepted((ROOT / "task_yamls" / f"{name}.yaml").read_text(), VLAUNCH_STORE="s3://b/p")
    assert all(resources.use_spot for resources in task.resources)
    assert len(task.resources) == len(prepared(name).plan.offers)
    first, offer = next(iter(task.resources)), prepared(name).plan.offers[0]
    assert (first.region, first.zone) == (offer.region, offer.zone)
    assert first.job_recovery["recover_on_exit_codes"] == [75]


@pytest.mark.filterwarnings("ignore")
def test_a_local_task_passes_skypilots_schema_too() -> None:
    assert accepted(prepared("tiny", infra="local").text, VLAUNCH_STORE="/store").num_nodes == 1


def test_candidate_zones_come_in_price_order_and_the_machine_knows_their_prices() -> None:
    chosen = prepared("vicuna-7b")
    task = yaml.safe_load(chosen.text)
    assert [each["infra"] for each in task["resources"]["ordered"]] == [offer.place for offer in chosen.plan.offers]
    prices = [offer.usd_per_hour for offer in chosen.plan.offers]
    assert prices == sorted(prices)
    table = json.loads(task["envs"]["VLAUNCH_PRICES"])
    assert set(table["usd_per_hour"]) == {offer.place for offer in chosen.plan.offers}


def test_the_machine_is_told_how_long_it_is_expected_to_last_where_the_plan_knows() -> None:
    simulated = prepared("tiny", "local.mean_life_seconds=90", infra="local").text
    assert yaml.safe_load(simulated)["envs"][MACHINE_LIFE] == "90"
    for unknown in (prepared("tiny", infra="local", spot=False), prepared("vicuna-7b")):
        assert MACHINE_LIFE not in yaml.safe_load(unknown.text)["envs"]


def test_zone_infra_and_price_narrow_the_candidates() -> None:
    chosen = prepared("vicuna-7b", infra="aws/us-east-1", max_price=8.0)
    assert [offer.place for offer in chosen.plan.offers] == ["aws/us-east-1/use1-az6"]
    assert {o.zone for o in prepared("vicuna-7b", zones=("usw2-az1",)).plan.offers} == {"usw2-az1"}


def test_the_task_carries_the_recipe_the_trainer_reads() -> None:
    task = yaml.safe_load(prepared("vicuna-7b", "train.epochs=2").text)
    assert read_recipe(task["envs"]["VLAUNCH_RECIPE"]).train.epochs == 2


def test_secrets_are_names_and_never_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_write_me_down")
    text = prepared("vicuna-7b").text
    assert yaml.safe_load(text)["secrets"] == {"HF_TOKEN": None}
    assert "hf_do_not" not in text


def test_the_store_is_the_recipes_or_is_left_to_be_named() -> None:
    assert yaml.safe_load(prepared("vicuna-7b").text)["envs"]["VLAUNCH_STORE"] is None
    named = prepared("vicuna-7b", "checkpoints.store=gs://bucket/path")
    assert yaml.safe_load(named.text)["envs"]["VLAUNCH_STORE"] == "gs://bucket/path"


def test_conversations_from_outside_the_checkout_are_mounted(tmp_path: Path) -> None:
    chats = tmp_path / "chats.json"
    task = yaml.safe_load(prepared("vicuna-7b", f"data.conversations={chats}").text)
    assert task["file_mounts"] == {"~/vlaunch-data/chats.json": str(chats)}
    assert read_recipe(task["envs"]["VLAUNCH_RECIPE"]).data.conversations == "~/vlaunch-data/chats.json"


@pytest.mark.parametrize("key", ["setup", "run"])
@pytest.mark.parametrize("name", recipe.names())
def test_the_shell_of_a_task_is_shell(name: str, key: str) -> None:
    infra = None if name in CLOUD else "local"
    script = yaml.safe_load(prepared(name, infra=infra).text)[key]
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", recipe.names())
def test_setup_installs_nothing_where_an_environment_has_all(name: str, tmp_path: Path) -> None:
    script = yaml.safe_load(prepared(name, infra=None if name in CLOUD else "local").text)["setup"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "VLAUNCH_ENV": sys.prefix}
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])


def test_several_nodes_meet_at_the_first_and_one_node_alone(tmp_path: Path) -> None:
    """The rendered run, with a stand-in for Python that prints how it was called."""
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "python"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    script = yaml.safe_load(prepared("vicuna-7b").text)["run"]

    def called(**variables: str) -> str:
        environment = {**os.environ, "VLAUNCH_ENV": str(tmp_path), "SKYPILOT_NUM_GPUS_PER_NODE": "8", **variables}
        return subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert called(SKYPILOT_NUM_NODES="1") == (
        "-m train.torchrun --standalone --nproc-per-node=8 --shutdown-timeout=110 -m train"
    )
    assert called(SKYPILOT_NUM_NODES="2", SKYPILOT_NODE_RANK="1", SKYPILOT_NODE_IPS="10.0.0.1\n10.0.0.2") == (
        "-m train.torchrun --nnodes=2 --node-rank=1 --master-port=29500 --master-addr=10.0.0.1 "
        "--nproc-per-node=8 --shutdown-timeout=110 -m train"
    )
