"""The one path of a launch: recipe, offers, plan, task text, and then this machine or SkyPilot."""

import contextlib
import datetime
import getpass
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from checkpoints.stores import StoreError, open_store
from launcher import managed, plan, task_yaml
from launcher.budgets import budgets
from launcher.errors import OfferError, RecipeError, RunError
from launcher.ledger import Ledger, Record, home
from launcher.local import SOURCE, Budget, LocalRun, listen, ship
from launcher.plan import Plan
from launcher.recipe import LocalConfig, NamedRecipe, Recipe
from launcher.report import run_cost
from launcher.runs import LOCAL, facts, find, folder_of, launched
from launcher.upkeep import Bucket
from market.offers import Offer
from market.storage import CLOUDS, rates


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


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What our own recovery strategy is to keep to. The names are those of its keys (launcher/steering.py)."""

    deadline_hours: float | None = None
    budget_usd: float | None = None
    work_hours: float | None = None
    """None: by the plan's estimate."""
    restart_minutes: float | None = None
    retry_minutes: float | None = None
    tick_seconds: float | None = None
    max_restarts_on_errors: int | None = None
    """SkyPilot's own key: how often a task that fails by itself is started again."""


WITHOUT_PLUGIN = (
    "SkyPilot's server does not have vlaunch's plugin, so its own strategy EAGER_NEXT_REGION recovers this run: "
    "deadline, budget, prices, and going on demand and back to spot are not looked after. On the server's machine: "
    "vlaunch plugin install, and start the server again."
)


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
    wishes: Wishes | None = None,
    clouds: Sequence[str] | None = None,
) -> Prepared:
    """Plan and render; `wishes` is None where the server does not have our recovery strategy, `clouds` are those that
    are enabled there, None where that is not known.

    Raises OfferError and market's own error where nothing fits.
    """
    recipe = named.recipe
    store: str | None
    if infra == LOCAL:
        chosen = _local_plan(recipe, spot=spot, zones=zones, max_price=max_price)
        store = recipe.checkpoints.store or str(home() / "store")
    else:
        chosen = _cloud_plan(recipe, spot=spot, infra=infra, zones=zones, max_price=max_price, clouds=clouds)
        store = recipe.checkpoints.store or None
    rules = None if wishes is None or infra == LOCAL else _rules(wishes, chosen, max_price)
    launch = task_yaml.Launch(run_id=run_id, store=store, spot=spot, rules=rules)
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


def record(prepared: Prepared, ledger: Ledger) -> Record:
    """Write the launch into the ledger, with the prices that hold now."""
    on_demand = prepared.plan.on_demand
    offers = prepared.plan.offers
    return ledger.append(
        "run", prepared.run_id,
        recipe=prepared.named.name, owner=owner(), recipe_text=prepared.named.text, task_yaml=prepared.text,
        base=prepared.named.recipe.model.base, nodes=prepared.named.recipe.machine.nodes,
        store=prepared.store, infra=prepared.infra or "", spot=prepared.spot, simulated=prepared.infra == LOCAL,
        offers=[msgspec.to_builtins(offer) for offer in offers],
        local=msgspec.to_builtins(prepared.named.recipe.local),
        bucket=_bucket(prepared),
        on_demand_usd_per_hour=on_demand.usd_per_hour if on_demand else None,
        price_source=f"{offers[0].price_source}, {offers[0].price_date}",
    )  # fmt: skip


def _bucket(prepared: Prepared) -> dict[str, Any] | None:
    """What keeping and carrying checkpoints will cost, where a cloud bills the store."""
    assert prepared.store is not None
    try:
        place = open_store(prepared.store).place()
    except StoreError:  # it may be written to, and its region not be asked for
        place = CLOUDS[prepared.store.partition("://")[0]]
    if not place:
        return None
    keep = prepared.named.recipe.checkpoints.keep
    found: dict[str, Any] = msgspec.to_builtins(Bucket(place=place, keep=keep, rates=rates()))
    return found


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
        raise RunError(f"{records[0].run_id} runs on {about['infra'] or 'a cloud'}, not on this machine.")
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


def check_name(run_id: str, store: str | None, ledger: Ledger) -> None:
    """Raises RunError where the name is in use, here or in the store."""
    taken = run_id in ledger.runs()
    if not taken and store is not None:
        with contextlib.suppress(RunError):
            taken = bool(managed.launch_in(store, run_id))
    if taken:
        raise RunError(
            f"The name {run_id} is in use by another run; choose another --name, or go on with that one: "
            f"vlaunch train --resume {run_id}"
        )


def check_secrets(named: NamedRecipe) -> None:
    """Raises RecipeError where a secret that the machine needs is not set here."""
    unset = [name for name in sorted(named.recipe.machine.secrets) if not os.environ.get(name)]
    if unset:
        raise RecipeError(
            f"The recipe needs {', '.join(unset)} on the machine, and {'it is' if len(unset) == 1 else 'they are'} not "
            f"set here. Export {'it' if len(unset) == 1 else 'them'} and launch again; values travel as SkyPilot's "
            "secrets and are written down nowhere."
        )


def submit(prepared: Prepared, ledger: Ledger) -> int:
    """Send the task by SkyPilot and record the launch; the managed job's id."""
    from launcher import skypilot

    assert prepared.store is not None
    job_id = skypilot.submit(prepared.text, _shipped(prepared.run_id))
    managed.announce(record(prepared, ledger), prepared.store)
    return job_id


def resume_there(run_id: str, wishes: Wishes, ledger: Ledger) -> int:
    """Send a run's task again, from its checkpoints on, with other wishes where there are some; the job's id."""
    from launcher import skypilot

    records = find(ledger, run_id)
    job = skypilot.job_of(records[0].run_id)
    if not job.over or job.state == "finished":
        raise RunError(f"{records[0].run_id} is {job.state}; see it with: vlaunch status {records[0].run_id}")
    task = yaml.safe_load(launched(records)["task_yaml"])
    changed = {key: value for key, value in msgspec.to_builtins(wishes).items() if value is not None}
    task["resources"]["job_recovery"].update(changed)
    managed.forget(folder_of(records[0].run_id))
    return skypilot.submit(task_yaml.to_text(task), _shipped(records[0].run_id))


def why_it_ended(run_id: str, ledger: Ledger) -> str:
    """Of a managed job that did not finish: our strategy's or SkyPilot's reason, and the task's own last words."""
    from launcher import skypilot

    known = facts(find(ledger, run_id))
    if known.state in ("stopped", "cancelled"):
        return (
            known.why
            or f"{run_id} was cancelled. What was committed is safe; go on with: vlaunch train --resume {run_id}"
        )
    said = skypilot.log(skypilot.job_of(run_id).job_id, tail=20)
    words = [line.partition("vlaunch: ")[2] for line in said if "vlaunch: " in line]
    last = words[-1] if words else "Its last lines:\n" + "\n".join(said)
    return f"{run_id} {known.state}: {known.why} {last}"


def _shipped(run_id: str) -> Path:
    """A folder with what a machine needs of us and nothing else; the task's workdir."""
    folder = folder_of(run_id) / "workdir"
    ship(folder)
    return folder


def _rules(wishes: Wishes, plan: Plan, max_price: float | None) -> dict[str, float | bool]:
    """The strategy's keys; what nobody has said is left to its defaults."""
    work = wishes.work_hours
    if work is None and plan.on_demand_estimate is not None:
        work = round(plan.on_demand_estimate.hours[1], 2)
    if wishes.deadline_hours is not None and work is None:
        raise RecipeError(
            "A deadline needs to know how much there is to do, and the recipe does not say how many tokens there are: "
            "set data.tokens_per_epoch, or give --work 5h."
        )
    on_demand = not plan.offers[0].spot or (wishes.deadline_hours is not None and bool(plan.fallbacks))
    said: dict[str, float | bool | None] = {
        **msgspec.to_builtins(wishes),
        "work_hours": work,
        "max_usd_per_hour": max_price,
        "on_demand": on_demand or None,
    }
    return {key: value for key, value in said.items() if value is not None}


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
    recipe: Recipe,
    *,
    spot: bool,
    infra: str | None,
    zones: Sequence[str],
    max_price: float | None,
    clouds: Sequence[str] | None,
) -> Plan:
    from market import prices
    from market.offers import select

    wanted: dict[str, Any] = {"accelerators": plan.accelerators(recipe), "infra": infra}
    if not recipe.machine.accelerators:
        raise RecipeError("The recipe asks for no accelerator; it is made for --infra local.")
    own = plan.own_offers(recipe)
    every = [*own, *prices.offers()]
    cloud = (infra or "").partition("/")[0]
    if cloud and cloud not in {offer.cloud for offer in every}:
        raise RecipeError(
            f"No price is known for {infra}. Give the recipe its places: [[machine.places]] with infra, usd_per_hour "
            "and spot."
        )
    if clouds is not None:
        if cloud and cloud not in clouds:
            raise RecipeError(_not_enabled([cloud], clouds))
        if not any(offer.cloud in clouds for offer in every):
            raise RecipeError(_not_enabled(sorted({offer.cloud for offer in every}), clouds))
        every = [offer for offer in every if offer.cloud in clouds]
    offers = select(every, spot=spot, zones=zones, max_usd_per_hour=max_price, **wanted)
    beside = [offer for offer in own if not offer.spot] or prices.offers()
    on_demand = select(beside, spot=False, accelerators=plan.accelerators(recipe), infra=None)
    same = [offer for offer in on_demand if offer.accelerator == offers[0].accelerator]
    allowed = [offer for offer in on_demand if infra is None or f"{offer.place}/".startswith(f"{infra}/")]
    return plan.choose(recipe, offers, same or on_demand, fallbacks=allowed if spot else ())


def _not_enabled(wanted: Sequence[str], clouds: Sequence[str]) -> str:
    has = f"has {', '.join(clouds)}" if clouds else "has none"
    return (
        f"SkyPilot's server has not enabled {' or '.join(wanted)} (it {has}); `sky check {' '.join(wanted)}` says what "
        "is missing. To try the same recipe's path here: vlaunch train --spot --infra local"
    )
