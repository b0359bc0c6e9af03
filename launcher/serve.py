"""The one path of bringing up a service: spec, offers, plan, service text, and then this machine or SkyPilot."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from checkpoints.stores import open_store
from launcher import plan, runs, serve_plan, serve_yaml, task_yaml
from launcher.errors import OfferError, RecipeError, RunError
from launcher.ledger import Ledger, home
from launcher.recipe import parse_accelerator
from launcher.runs import LOCAL
from launcher.serve_plan import ServePlan
from launcher.serve_spec import NamedSpec, ServedModel, ServeSpec

EXPORT = "export"
"""Where below a run's prefix its finished model is."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a service: a SkyServe service of its own."""

    service: str
    model: ServedModel
    """With its source resolved."""
    made_from: str
    """The source as the spec says it; what a folder on this machine is made from where it is not there yet."""
    plan: ServePlan
    text: str
    """The service: what is shown is what is sent."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A service that is not up yet."""

    named: NamedSpec
    service: str
    infra: str | None
    spot: bool
    gateway: str | None
    parts: list[Part]

    @property
    def text(self) -> str:
        """Everything that is sent, one document a model."""
        return "---\n".join(part.text for part in self.parts)


def prepare(
    named: NamedSpec,
    ledger: Ledger,
    *,
    service: str,
    spot: bool = True,
    infra: str | None = None,
    zones: Sequence[str] = (),
    max_price: float | None = None,
    gateway: str | None = None,
) -> Prepared:
    """Plan and render every model. Raises RecipeError, OfferError, RunError and market's own error."""
    spec, parts = named.spec, []
    for model in spec.models:
        resolved = msgspec.structs.replace(model, source=resolve(model.source, ledger, here=infra == LOCAL))
        if infra == LOCAL:
            chosen = _local_plan(spec, resolved, spot=spot)
        else:
            chosen = _cloud_plan(spec, resolved, spot=spot, infra=infra, zones=zones, max_price=max_price)
        name = service if len(spec.models) == 1 else f"{service}-{_plain(model.name)}"
        launch = serve_yaml.Launch(service=name, run_id=service, gateway=gateway, spot=spot)
        rendered = serve_yaml.service(spec, resolved, chosen, launch)
        text = task_yaml.to_text(rendered, header(named))
        parts.append(Part(service=name, model=resolved, made_from=model.source, plan=chosen, text=text))
    return Prepared(named=named, service=service, infra=infra, spot=spot, gateway=gateway, parts=parts)


def header(named: NamedSpec) -> str:
    """The comment over a service."""
    secrets = sorted({serve_yaml.TOKEN, *named.spec.machine.secrets})
    return (
        f"Rendered by vlaunch from the spec {named.name}. Change the spec, not this file.\n"
        "Runs with: sky serve up --env VLAUNCH_GATEWAY=https://your-gateway "
        + "".join(f"--secret {name} " for name in secrets)
        + "THIS_FILE"
    )


def resolve(source: str, ledger: Ledger, *, here: bool) -> str:
    """Where the weights really are: a run's id becomes its export. Raises RecipeError and RunError."""
    if source == "tiny" or source.startswith("package:"):
        if not here:
            raise RecipeError(
                f"'{source}' is made on this machine only: give the model's Hugging Face name, a folder, "
                "a bucket with an export, or a finished run."
            )
        return str(made_folder(source))
    if "://" in source:
        return str(made_folder(source)) if here else source
    if Path(source).expanduser().is_dir():
        return str(Path(source).expanduser().resolve())
    if "/" in source:
        if source.startswith(("/", "~", ".")):
            raise RecipeError(f"There is no model at {source}: no such folder.")
        return source
    records = runs.find(ledger, source)
    run_id, store = records[0].run_id, runs.launched(records)["store"]
    if not any(True for _ in open_store(store).inside(run_id).list(f"{EXPORT}/")):
        raise RunError(f"{run_id} has no finished model in {store}; see how it stands with: vlaunch status {run_id}")
    export = f"{store.rstrip('/')}/{run_id}/{EXPORT}"
    return str(made_folder(export)) if here and "://" in export else export


def made_folder(source: str) -> Path:
    """Where this machine keeps the folder that is made from a package, from nothing, or from a bucket."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    return home() / "models" / f"{_plain(source.rstrip('/').rpartition('/')[2])}-{digest}"


def _plain(name: str) -> str:
    """Fit for the name of a service and of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"


def _local_plan(spec: ServeSpec, model: ServedModel, *, spot: bool) -> ServePlan:
    beside = plan.local_offers(spec.local, spot=False)
    return serve_plan.choose(model, spec.replicas, plan.local_offers(spec.local) if spot else beside, beside)


def _cloud_plan(
    spec: ServeSpec,
    model: ServedModel,
    *,
    spot: bool,
    infra: str | None,
    zones: Sequence[str],
    max_price: float | None,
) -> ServePlan:
    from market import prices
    from market.offers import select

    if not spec.machine.accelerators:
        raise OfferError("The spec asks for no accelerator; it is made for --infra local.")
    if spec.replicas.max > spec.replicas.min and spec.replicas.target_qps is None:
        raise RecipeError(
            "[replicas] max is above min, and SkyServe scales by requests a second: set target_qps, or max to min."
        )
    accelerators = [parse_accelerator(each) for each in spec.machine.accelerators]
    every = [*plan.offers_at(spec.machine.places, accelerators), *prices.offers()]
    offers = select(
        every, accelerators=accelerators, spot=spot, infra=infra, zones=zones, max_usd_per_hour=max_price
    )  # fmt: skip
    on_demand = select(every, accelerators=accelerators, spot=False, infra=None)
    return serve_plan.choose(model, spec.replicas, offers, on_demand)
