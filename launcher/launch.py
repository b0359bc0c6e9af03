"""The one path of a launch: recipe, offers, plan, task text, and then this machine or SkyPilot."""

import datetime
import getpass
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from checkpoints.stores import open_store
from launcher import plan, task_yaml
from launcher.budgets import budgets
from launcher.errors import MissingPart, OfferError, RecipeError, RunError
from launcher.ledger import Ledger, Record, home
from launcher.local import SOURCE, Budget, LocalRun, listen
from launcher.plan import Plan
from launcher.recipe import LocalConfig, NamedRecipe, Recipe
from launcher.report import run_cost
from launcher.runs import facts, find, folder_of, launched
from market.offers import Offer

LOCAL = "local"


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A launch that has not happened yet."""

    named: NamedRecipe
    plan: Plan
    run_id: str
    store: str | None
    infra: str | None
    spot: bool
    text: str
    """The task: what is shown is what is sent."""


def new_run_id(name: str, now: datetime.datetime) -> str:
    """Recipe, UTC date, six hex digits."""
    return f"{name}-{now:%Y%m%d}-{secrets.token_hex(3)}"


def prepare(
    named: NamedRecipe,
    *,
    spot: bool,
    infra: str | None,
    zones: Sequence[str],
    max_price: float | None,
    run_id: str,
) -> Prepared:
    """Plan and render. Raises OfferError and market's own error where nothing fits."""
    recipe = named.recipe
    store: str | None
    if infra == LOCAL:
        chosen = _local_plan(recipe, spot=spot, zones=zones, max_price=max_price)
        store = recipe.checkpoints.store or str(home() / "store")
    else:
        chosen = _cloud_plan(recipe, spot=spot, infra=infra, zones=zones, max_price=max_price)
        store = recipe.checkpoints.store or None
    launch = task_yaml.Launch(run_id=run_id, store=store, spot=spot)
    text = task_yaml.to_text(task_yaml.task(named, chosen, launch), header(named))
    return Prepared(named=named, plan=chosen, run_id=run_id, store=store, infra=infra, spot=spot, text=text)


def header(named: NamedRecipe) -> str:
    """The comment over a task."""
    return (
        f"Rendered by vlaunch from the recipe {named.name}. Change the recipe, not this file.\n"
        "Runs with: sky jobs launch --env VLAUNCH_STORE=s3://your-bucket/path"
        + "".join(f" --secret {name}" for name in sorted(named.recipe.machine.secrets))
        + " THIS_FILE"
    )


def check_inputs(named: NamedRecipe, store: str | None) -> str:
    """What a machine would find out too late: conversations that cannot be used, a store that cannot be written.
    What the conversations file holds, in words. Raises RecipeError, RunError and StoreError.
    """
    if store is None:
        raise RecipeError(
            "There is no store for checkpoints: --set checkpoints.store=s3://your-bucket/path (or gs://)."
        )
    where = open_store(store)
    probe = f"writable-{secrets.token_hex(4)}"
    where.create(probe, b"")
    where.delete([probe])
    given = named.recipe.data.conversations
    if "://" in given:
        return given
    path = SOURCE / named.mounts.get(given, given)
    checked = subprocess.run(
        [sys.executable, "-m", "train.conversations", str(path)],
        capture_output=True, text=True, check=False, cwd=SOURCE,
    )  # fmt: skip
    if checked.returncode:
        raise RecipeError((checked.stdout.strip() or checked.stderr.strip()).splitlines()[-1])
    return checked.stdout.strip()


def record(prepared: Prepared, ledger: Ledger) -> None:
    """Write the launch into the ledger, with the prices that hold now."""
    on_demand = prepared.plan.on_demand
    offers = prepared.plan.offers
    ledger.append(
        "run", prepared.run_id,
        recipe=prepared.named.name, owner=owner(), recipe_text=prepared.named.text, task_yaml=prepared.text,
        base=prepared.named.recipe.model.base, nodes=prepared.named.recipe.machine.nodes,
        store=prepared.store, infra=prepared.infra or "", spot=prepared.spot, simulated=prepared.infra == LOCAL,
        offers=[msgspec.to_builtins(offer) for offer in offers],
        local=msgspec.to_builtins(prepared.named.recipe.local),
        on_demand_usd_per_hour=on_demand.usd_per_hour if on_demand else None,
        price_source=f"{offers[0].price_source}, {offers[0].price_date}",
    )  # fmt: skip


def owner() -> str:
    """Whose runs these are in the reports: VLAUNCH_OWNER, or the user's name on this machine."""
    if named := os.environ.get("VLAUNCH_OWNER"):
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""


def run_here(run_id: str, ledger: Ledger, say: Callable[[str], None]) -> None:
    """Run a recorded local run on this machine until it ends. Raises RunError where it did not finish."""
    records = find(ledger, run_id)
    about = launched(records)
    if about["infra"] != LOCAL:
        raise RunError(f"{records[0].run_id} runs on {about['infra'] or 'a cloud'}; SkyPilot resumes it by itself.")
    if any(r.kind == "ended" and r.facts["state"] == "finished" for r in records):
        raise RunError(f"{records[0].run_id} has finished; see it with: vlaunch cost report {records[0].run_id}")
    run = LocalRun(
        records[0].run_id,
        about["task_yaml"],
        msgspec.convert(about["offers"], list[Offer]),
        msgspec.convert(about["local"], LocalConfig),
        folder_of(records[0].run_id),
        ledger,
        say,
        machines_before=sum(record.kind == "machine_started" for record in records),
        budget=_budget(records),
    )
    listen(run.stop)
    run.run()


def _budget(records: list[Record]) -> Budget | None:
    """What the run may cost, where budgets are to stop it. Raises RunError where it has cost that already."""
    limits = budgets()
    if limits.run_usd is None or limits.at_limit != "stop":
        return None
    spent = run_cost(facts(records), datetime.datetime.now(datetime.UTC)).usd_spent or 0.0
    if spent >= limits.run_usd:
        raise RunError(
            f"{records[0].run_id} has cost ${spent:,.2f}, and the budget of a run is ${limits.run_usd:,.2f}; "
            f"raise run_usd in {home() / 'config.toml'} to go on."
        )
    return Budget(limits.run_usd, spent)


def detach(run_id: str, command: str = "train") -> None:
    """Go on with a recorded local run, or service, in a process of its own."""
    folder = folder_of(run_id)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "launcher.txt").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "launcher", command, "--resume", run_id],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=os.getcwd(),
        )  # fmt: skip


def missing_for_cloud(infra: str | None) -> MissingPart:
    """Why a cloud launch cannot go on from this machine."""
    from launcher import skypilot

    return MissingPart(
        f"{skypilot.what_is_missing()} To try the same recipe's path here: vlaunch train --spot --infra local"
    )


def _local_plan(recipe: Recipe, *, spot: bool, zones: Sequence[str], max_price: float | None) -> Plan:
    offers = plan.local_offers(recipe.local, spot=spot)
    if zones:
        unknown = set(zones) - {offer.zone for offer in offers}
        if unknown:
            raise OfferError(f"The recipe has no local zone {', '.join(sorted(unknown))}.")
        offers = [offer for offer in offers if offer.zone in zones]
    if max_price is not None and all(offer.usd_per_hour > max_price for offer in offers):
        raise OfferError(
            f"No simulated zone is at or below ${max_price:.2f} an hour; the cheapest is "
            f"{offers[0].place} at ${offers[0].usd_per_hour:.2f}."
        )
    offers = [offer for offer in offers if max_price is None or offer.usd_per_hour <= max_price]
    return plan.choose(recipe, offers, plan.local_offers(recipe.local, spot=False))


def _cloud_plan(
    recipe: Recipe, *, spot: bool, infra: str | None, zones: Sequence[str], max_price: float | None
) -> Plan:
    from market import prices
    from market.offers import select

    wanted: dict[str, Any] = {"accelerators": plan.accelerators(recipe), "infra": infra}
    if not recipe.machine.accelerators:
        raise RecipeError("The recipe asks for no accelerator; it is made for --infra local.")
    every = prices.offers()
    offers = select(every, spot=spot, zones=zones, max_usd_per_hour=max_price, **wanted)
    on_demand = select(every, spot=False, accelerators=plan.accelerators(recipe), infra=None)
    same = [offer for offer in on_demand if offer.accelerator == offers[0].accelerator]
    return plan.choose(recipe, offers, same or on_demand)
