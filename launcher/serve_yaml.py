"""A plan of serving to the SkyServe service that does it, as a dictionary. Pure and deterministic: what is shown is
what is sent.

A replica is an engine that listens to its own machine alone and a worker that dials the gateway; serving.replica
keeps both and answers SkyServe's readiness probe. The gateway's address and every secret are named at launch.
"""

import shlex
from typing import Any

import msgspec

from launcher import machine_setup
from launcher.serve_plan import ServePlan
from launcher.serve_spec import ServedModel, ServeSpec
from launcher.task_yaml import LABEL, REPOSITORY_FILES, label_of

TOKEN = "VLAUNCH_WORKER_TOKEN"
"""The secret a worker registers with."""
ENVIRONMENT = "serve"
"""What the environment of replicas and gateways is called on their machines."""
ENGINE_PORT = 8000
READY_PORT = 8081
MODEL_FOLDER = "~/vlaunch-model"
"""Where weights that do not come from the hub appear on the machine."""

# vLLM pins its own torch and transformers, so it never shares an environment.
_SETUP_VLLM = """\
engine="$HOME/.vlaunch/engine"
if [ ! -e "$engine/ready" ]; then
  uv venv --quiet --allow-existing --seed --python 3.12 "$engine"
  uv pip install --quiet --python "$engine/bin/python" --torch-backend=auto {requirement}
  touch "$engine/ready"
fi
"""

_RUN = """\
engine_port="${{VLAUNCH_ENGINE_PORT:-{engine_port}}}"
exec "$env/bin/python" -m serving.replica --gateway "$VLAUNCH_GATEWAY" --model {name} \\
  --engine "http://127.0.0.1:$engine_port" --engine-model {engine_model} \\
  --ready-port "${{VLAUNCH_READY_PORT:-{ready_port}}}" --grace-seconds {grace} \\
  -- {command}
"""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What is decided at launch, beside spec and plan."""

    service: str
    run_id: str
    """Of the whole, which may have a service for each model; the label of every machine."""
    gateway: str | None
    """None leaves the address to be named by `sky serve up --env VLAUNCH_GATEWAY=…`."""
    spot: bool = True


def service(spec: ServeSpec, model: ServedModel, plan: ServePlan, launch: Launch) -> dict[str, Any]:
    """The SkyServe service of one model."""
    rendered: dict[str, Any] = {
        "name": launch.service,
        "service": {
            # SkyServe takes the port from `resources` where they name one machine, and of several it takes none.
            "ports": READY_PORT,
            "readiness_probe": {
                "path": "/ready",
                "initial_delay_seconds": spec.replicas.ready_within_seconds,
                "timeout_seconds": 10,
            },
            "replica_policy": _policy(spec, launch),
        },
        "workdir": REPOSITORY_FILES,
        "resources": _resources(spec, plan, launch),
    }
    source, mounts = place_of(model)
    if mounts:
        rendered["file_mounts"] = mounts
    rendered["envs"] = {"VLAUNCH_SERVICE": launch.service, "VLAUNCH_GATEWAY": launch.gateway}
    # Names alone: SkyPilot takes the values from the environment of whoever launches.
    rendered["secrets"] = dict.fromkeys(sorted({TOKEN, *spec.machine.secrets}))
    gpu = bool(spec.machine.accelerators)
    what = "The worker beside the engine, without the launcher's clouds"
    setup = machine_setup.environment(what, "serve", name=ENVIRONMENT)
    rendered["setup"] = setup + (_SETUP_VLLM.format(requirement=shlex.quote(spec.engine.vllm)) if gpu else "")
    rendered["run"] = machine_setup.variable(ENVIRONMENT) + _RUN.format(
        name=shlex.quote(model.name),
        engine_model=shlex.quote(model.name) if gpu else source,
        engine_port=ENGINE_PORT,
        ready_port=READY_PORT,
        grace=spec.machine.grace_seconds,
        command=_vllm(spec, model, plan, source) if gpu else _transformers(source),
    )
    return rendered


def place_of(model: ServedModel) -> tuple[str, dict[str, str]]:
    """What the engine is told to load, as shell text, and the files it needs to be there."""
    kept = "://" in model.source or model.source.startswith(("/", "~", "."))
    if not kept:
        return shlex.quote(model.source), {}
    # A tilde in quotes would stay one.
    return f'"$HOME"/{shlex.quote(MODEL_FOLDER.removeprefix("~/"))}', {MODEL_FOLDER: model.source}


def _policy(spec: ServeSpec, launch: Launch) -> dict[str, Any]:
    replicas = spec.replicas
    policy: dict[str, Any] = {"min_replicas": replicas.min, "max_replicas": replicas.max}
    if replicas.target_qps is not None:
        policy["target_qps_per_replica"] = replicas.target_qps
        policy["upscale_delay_seconds"] = replicas.upscale_delay_seconds
        policy["downscale_delay_seconds"] = replicas.downscale_delay_seconds
    if launch.spot:
        policy["dynamic_ondemand_fallback"] = replicas.on_demand_fallback
        policy["base_ondemand_fallback_replicas"] = replicas.on_demand_base
    return policy


def _resources(spec: ServeSpec, plan: ServePlan, launch: Launch) -> dict[str, Any]:
    resources: dict[str, Any] = {"use_spot": launch.spot, "disk_size": spec.machine.disk_gb, "ports": READY_PORT}
    resources["labels"] = {LABEL: label_of(launch.run_id)}
    if spec.machine.cpus:
        resources["cpus"] = spec.machine.cpus
    candidates = [
        {"infra": offer.place, "accelerators": f"{offer.accelerator}:{offer.accelerator_count}"}
        for offer in plan.offers
        if offer.cloud != "local"
    ]
    if candidates:
        resources["ordered"] = candidates
    return resources


def _vllm(spec: ServeSpec, model: ServedModel, plan: ServePlan, source: str) -> str:
    words = ['"$HOME/.vlaunch/engine/bin/vllm"', "serve", source, "--served-model-name", shlex.quote(model.name)]
    words += ["--host", "127.0.0.1", "--port", '"$engine_port"']
    words += ["--tensor-parallel-size", '"$SKYPILOT_NUM_GPUS_PER_NODE"']
    if model.context_tokens is not None:
        words += ["--max-model-len", str(model.context_tokens)]
    return " ".join([*words, *map(shlex.quote, spec.engine.arguments)])


def _transformers(source: str) -> str:
    return f'"$env/bin/transformers" serve {source} --host 127.0.0.1 --port "$engine_port" --device cpu'
