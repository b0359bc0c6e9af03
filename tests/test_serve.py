"""Specs, plans and services, and SkyPilot's own word on them. The golden files are task_yamls/*.service.yaml."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from launcher import recipe, serve, serve_plan, serve_spec, serve_yaml
from launcher.errors import OfferError, RecipeError, RunError
from launcher.ledger import Ledger
from launcher.serve_spec import ReplicasConfig, ServedModel
from market.offers import Offer
from tests.serving_parts import parts
from tests.sky_tasks import accepted

ROOT = Path(__file__).resolve().parent.parent
CLOUD = [n for n in recipe.names(serve_spec.FOLDERS) if serve_spec.load(n).spec.machine.accelerators]
VICUNA = ServedModel(name="v", source="a/b", parameters=6.74, kv_bytes_per_token=524_288, context_tokens=4096)


def prepared(name: str, *changes: str, ledger: Ledger | None = None, **choices: Any) -> serve.Prepared:
    models, replicas = choices.pop("models", ()), choices.pop("replicas", None)
    named = serve_spec.load(name, changes, models=models, replicas=replicas)
    return serve.prepare(named, ledger or Ledger(ROOT), service=f"{name}-20261125-abcdef", **choices)


def service_of(name: str, *changes: str, **choices: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(prepared(name, *changes, **choices).text)
    return found


def offer(accelerator: str, usd: float, *, zone: str = "z", spot: bool = True, count: int = 1) -> Offer:
    return Offer(
        cloud="aws", region="r", zone=zone, instance_type="i", accelerator=accelerator, accelerator_count=count,
        usd_per_hour=usd, spot=spot, price_source="a test", price_date="today",
    )  # fmt: skip


def test_a_cluster_of_ones_own_serves_at_the_price_that_the_spec_gives(tmp_path: Path) -> None:
    spec = tmp_path / "lab.toml"
    spec.write_text(
        '[[models]]\nname = "m"\nsource = "a/b"\n[machine]\naccelerators = ["A100:1"]\n'
        '[[machine.places]]\ninfra = "slurm/lab/low"\nusd_per_hour = 1.5\nspot = true\n'
    )
    named = serve_spec.load(str(spec))
    (part,) = serve.prepare(named, Ledger(tmp_path), service="lab-1", infra="slurm/lab", gateway="http://g").parts
    assert yaml.safe_load(part.text)["resources"]["ordered"] == [{"infra": "slurm/lab/low", "accelerators": "A100:1"}]
    assert part.plan.expected is not None
    assert part.plan.expected.usd_per_hour == 3.0


@pytest.mark.filterwarnings("ignore")  # SkyPilot's own, at import
@pytest.mark.parametrize("name", CLOUD)
def test_every_committed_service_passes_skypilots_schema_task_and_service_spec(name: str) -> None:
    task = accepted((ROOT / "task_yamls" / f"{name}.service.yaml").read_text(), VLAUNCH_GATEWAY="https://g")
    from sky.serve import serve_utils

    serve_utils.validate_service_task(task, pool=False)
    spec = task.service
    replicas = serve_spec.load(name).spec.replicas
    assert (spec.min_replicas, spec.max_replicas) == (replicas.min, replicas.max)
    assert spec.base_ondemand_fallback_replicas == replicas.on_demand_base
    assert spec.dynamic_ondemand_fallback
    assert spec.readiness_path == "/ready"
    assert spec.ports == str(serve_yaml.READY_PORT)  # where SkyServe's controller finds a replica
    plan = prepared(name).parts[0].plan
    assert [r.zone or r.region for r in task.resources] == [o.zone or o.region for o in plan.offers]
    assert all(resources.use_spot for resources in task.resources)


@pytest.mark.filterwarnings("ignore")
def test_the_gateways_machine_is_a_task_of_skypilots_on_demand_with_one_port_open() -> None:
    task = accepted((ROOT / "task_yamls" / "gateway.yaml").read_text())
    (resources,) = task.resources
    assert (resources.use_spot, resources.ports, resources.accelerators) == (False, ["8080"], None)


def test_what_the_gateways_machine_runs_lets_in_who_has_the_secret_alone(tmp_path: Path) -> None:
    run = yaml.safe_load((ROOT / "task_yamls" / "gateway.yaml").read_text())["run"]
    assert "--host 0.0.0.0 --port 8080" in run
    script = run.replace("--host 0.0.0.0 --port 8080", "--host 127.0.0.2 --port 0")
    variables = {**os.environ, "VLAUNCH_ENV": sys.prefix}
    with parts(tmp_path) as serving:
        serving.start("open", ["bash", "-c", script], variables)
        assert serving.processes["open"].wait(60) == 1
        assert "or set VLAUNCH_API_KEY" in serving.log("open")
        variables |= {"VLAUNCH_API_KEY": "a-key", "VLAUNCH_WORKER_TOKEN": "a-token"}
        serving.start("gateway", ["bash", "-c", script], variables)
        port = serving.wait_for_log("gateway", r'"gateway listens".*"port":(\d+)').group(1)
        for key, status in (("another", 401), ("a-key", 200)):
            headers = {"Authorization": f"Bearer {key}"}
            assert httpx.get(f"http://127.0.0.2:{port}/v1/models", headers=headers).status_code == status


def test_a_cloud_service_with_bounds_must_say_requests_a_second(tmp_path: Path) -> None:
    text = Path("recipes/serve/vicuna-7b.toml").read_text()
    (tmp_path / "other.toml").write_text(text.replace("target_qps", "target_requests"))
    with pytest.raises(RecipeError, match="SkyServe scales by requests a second: set target_qps"):
        prepared(str(tmp_path / "other.toml"), "replicas.target_requests=3")


def test_the_places_of_a_service_are_several_zones_and_accelerators_the_cheapest_first() -> None:
    plan = prepared("vicuna-7b").parts[0].plan
    prices = [each.usd_per_hour for each in plan.offers]
    assert prices == sorted(prices)
    assert len({each.place for each in plan.offers}) > 4
    assert len({each.accelerator for each in plan.offers}) > 1


def test_a_service_on_demand_asks_for_no_spot_and_no_fallback() -> None:
    service = service_of("vicuna-7b", spot=False)
    assert service["resources"]["use_spot"] is False
    assert "dynamic_ondemand_fallback" not in service["service"]["replica_policy"]


def test_secrets_are_names_and_the_engine_listens_to_its_own_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_write_me_down")
    text = prepared("vicuna-7b").text
    assert yaml.safe_load(text)["secrets"] == {"HF_TOKEN": None, "VLAUNCH_WORKER_TOKEN": None}
    assert "hf_do_not" not in text
    assert "--host 127.0.0.1" in yaml.safe_load(text)["run"]
    assert yaml.safe_load(text)["envs"]["VLAUNCH_GATEWAY"] is None


@pytest.mark.parametrize("key", ["setup", "run"])
@pytest.mark.parametrize("name", recipe.names(serve_spec.FOLDERS))
def test_the_shell_of_a_service_is_shell(name: str, key: str) -> None:
    script = service_of(name, infra=None if name in CLOUD else "local")[key]
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_replica_is_called_with_words_that_shell_cannot_break(tmp_path: Path) -> None:
    """The rendered run, with a stand-in for Python that prints its words one a line."""
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "python"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    weights = tmp_path / "my weights"
    weights.mkdir()
    script = service_of("vicuna-7b", "engine.arguments=['--seed', '1 $(x)']", models=[f"a chat={weights}"])["run"]
    environment = {
        **os.environ, "VLAUNCH_ENV": str(tmp_path), "VLAUNCH_GATEWAY": "https://g", "SKYPILOT_NUM_GPUS_PER_NODE": "2",
        "HOME": "/home/me",
    }  # fmt: skip
    words = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
    called = words.splitlines()
    assert called[called.index("--model") + 1] == "a chat"
    assert called[called.index("--seed") + 1] == "1 $(x)"
    engine = called[called.index("--") + 1 :]
    assert engine[:3] == ["/home/me/.vlaunch/engine/bin/vllm", "serve", "/home/me/vlaunch-model"]
    assert engine[engine.index("--tensor-parallel-size") + 1] == "2"


def test_the_model_of_a_finished_run_is_its_export(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append("run", "mine-20261125-aaaaaa", store=str(tmp_path / "store"))
    ledger.append("run", "not-yet-20261125-bbbbbb", store=str(tmp_path / "store"))
    export = tmp_path / "store" / "mine-20261125-aaaaaa" / "export"
    export.mkdir(parents=True)
    (export / "config.json").write_text("{}")
    service = service_of("vicuna-7b", ledger=ledger, models=["chat=mine-2026"])
    assert service["file_mounts"] == {"~/vlaunch-model": str(export)}
    assert "--model chat " in service["run"]
    with pytest.raises(RunError, match="not-yet-20261125-bbbbbb has no finished model"):
        prepared("vicuna-7b", ledger=ledger, models=["not-yet"])


def test_a_bucket_is_mounted_and_a_hub_name_is_left_to_the_engine() -> None:
    mounted = service_of("vicuna-7b", models=["chat=s3://bucket/runs/mine/export"])
    assert mounted["file_mounts"] == {"~/vlaunch-model": "s3://bucket/runs/mine/export"}
    hub = service_of("vicuna-7b", models=["org/My-Chat"])
    assert "file_mounts" not in hub
    assert "serve org/My-Chat --served-model-name My-Chat" in hub["run"]


def test_several_models_are_several_services_under_one_text() -> None:
    both = prepared("vicuna-7b", models=["vicuna-7b", "org/Other.2"])
    documents = list(yaml.safe_load_all(both.text))
    assert [each["name"] for each in documents] == [
        "vicuna-7b-20261125-abcdef-vicuna-7b", "vicuna-7b-20261125-abcdef-other-2",
    ]  # fmt: skip
    assert both.parts[1].plan.tokens_per_second is None
    # Billing exports find all machines of a service by the id that the ledger has.
    labels = [each["resources"]["labels"] for each in documents]
    assert labels == [{"vlaunch-run": "vicuna-7b-20261125-abcdef"}] * 2


def test_replicas_on_the_command_line_keep_the_spec_whole() -> None:
    spec = serve_spec.load("vicuna-13b", replicas=6).spec.replicas
    assert (spec.min, spec.max, spec.on_demand_base) == (6, 6, 1)
    assert serve_spec.load("smollm2-135m", replicas=1).spec.replicas.max == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["replicas.mim=2"], "recipes/serve/vicuna-7b.toml with --set replicas.mim=2: [replicas] has no key 'mim'."),
        (["replicas.min=9"], "max is 4, less than min, which is 9"),
        (["replicas.on_demand_base=3"], "on_demand_base is 3, more than min, which is 2"),
        (["machine.accelerators=['L4:none']"], "accelerators has 'L4:none'; write NAME:COUNT"),
        (["models=[]"], "--set models=[]: write section.key=value"),
        (["engine.vllm=1"], "[engine] vllm must be text, not a whole number."),
    ],
)
def test_a_wrong_spec_is_a_sentence_with_section_and_key(changes: list[str], sentence: str) -> None:
    with pytest.raises(RecipeError) as failure:
        prepared("vicuna-7b", *changes)
    assert sentence in str(failure.value)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [("tiny", "made on this machine only"), ("/no/such/folder", "no such folder"), ("nothing", "There is no run")],
)
def test_a_model_that_cannot_be_served_is_a_sentence(model: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises((RecipeError, RunError), match=sentence):
        prepared("vicuna-7b", models=[model], ledger=Ledger(tmp_path))


def test_a_model_that_fits_no_machine_is_refused_with_what_it_needs() -> None:
    with pytest.raises(OfferError, match=r"v needs 17 GB of accelerator memory, more than V100:1 has"):
        serve_plan.choose(VICUNA, ReplicasConfig(), [offer("V100", 1.0)], [])
    kept = serve_plan.choose(VICUNA, ReplicasConfig(), [offer("V100", 1.0), offer("L4", 2.0)], [])
    assert [each.accelerator for each in kept.offers] == ["L4"]


def test_dollars_are_those_of_spot_of_on_demand_and_of_the_worst_that_can_come() -> None:
    replicas = ReplicasConfig(min=3, max=5, target_qps=1.0, on_demand_base=1)
    spot = [offer("L4", 0.25), offer("A100", 1.0, zone="y")]
    on_demand = [offer("L4", 0.75, spot=False), offer("A100", 4.0, zone="y", spot=False)]
    plan = serve_plan.choose(VICUNA, replicas, spot, on_demand)
    assert plan.expected is not None
    assert plan.on_demand_rate is not None
    assert plan.worst is not None
    assert plan.expected.usd_per_hour == pytest.approx(2 * 0.25 + 0.75)
    assert plan.expected.usd_per_month == pytest.approx(730 * (2 * 0.25 + 0.75))
    assert plan.on_demand_rate.usd_per_hour == pytest.approx(3 * 0.75)
    assert plan.worst.usd_per_hour == pytest.approx(5 * 4.0)


def test_an_unknown_on_demand_price_makes_what_hangs_on_it_unknown() -> None:
    plan = serve_plan.choose(VICUNA, ReplicasConfig(on_demand_base=1), [offer("L4", 0.25)], [])
    assert (plan.expected, plan.on_demand_rate, plan.worst) == (None, None, None)


def test_tokens_a_second_grow_with_bandwidth_and_yield_to_a_measurement() -> None:
    small, large = serve_plan.throughput(VICUNA, offer("L4", 1)), serve_plan.throughput(VICUNA, offer("A100-80GB", 1))
    assert small is not None
    assert large is not None
    assert small[0] < small[1] < large[0] < large[1]
    measured = ServedModel(name="v", source="a/b", tokens_per_second=500)
    plan = serve_plan.choose(measured, ReplicasConfig(), [offer("L4", 1.8)], [])
    assert plan.usd_per_million_tokens == pytest.approx((1.0, 1.0))
    unknown = ServedModel(name="v", source="a/b")
    assert serve_plan.choose(unknown, ReplicasConfig(), [offer("L4", 1.8)], []).usd_per_million_tokens is None


def test_the_command_prints_the_very_text_that_is_committed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "serve", "vicuna-13b", "--dry-run"], cwd=ROOT, capture_output=True,
        text=True, check=True, env={**os.environ, "VLAUNCH_HOME": str(tmp_path), "COLUMNS": "160"},
    )  # fmt: skip
    committed = (ROOT / "task_yamls" / "vicuna-13b.service.yaml").read_text()
    named = yaml.safe_load(done.stdout)["name"]
    assert done.stdout.replace(named, "vicuna-13b") == committed.replace("source vicuna-13b", "source vicuna-13b")
    assert "a million tokens at full load" in done.stderr
    assert "catalog" in done.stderr
    assert list(tmp_path.iterdir()) == []
