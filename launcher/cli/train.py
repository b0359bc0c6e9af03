"""`vlaunch train`: the plan in dollars, the task as it is sent, and then the run."""

import sys
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.completion import recipes, run_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from launcher.launch import Prepared, Wishes
    from launcher.ledger import Ledger
    from launcher.plan import Plan
    from launcher.recipe import NamedRecipe
    from market.offers import Offer


@click.command()
@click.argument("recipe", required=False, shell_complete=recipes)
@click.option("--spot/--on-demand", default=True, show_default=True, help="Spot machines, or ones that stay.")
@click.option(
    "--infra", metavar="INFRA", help="Where, in SkyPilot's words (aws, gcp/us-central1, slurm/...), or 'local'."
)
@click.option("--zone", "zones", multiple=True, metavar="Z", help="Only this zone; may be given again.")
@click.option("--max-price", type=float, metavar="USD_PER_HOUR", help="No machine above this price an hour.")
@click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value of the recipe.")
@click.option(
    "--data", "data_file", metavar="FILE", help="Train on these conversations; raw ones are cleaned, after asking."
)
@click.option("--mean-life", metavar="60s", help="With --infra local: mean life of a simulated spot machine.")
@click.option("--deadline", metavar="10h", help="When it has to be done, from now; may go on demand for it.")
@click.option("--budget", type=float, metavar="USD", help="Save and stop before more than this is spent.")
@click.option("--work", metavar="8h", help="How long it would take undisturbed, where the recipe does not tell.")
@click.option("--rule", "rules", multiple=True, metavar="KEY=NUMBER", help="A key of the strategy (docs/skypilot.md).")
@click.option("--name", metavar="NAME", help="Of the run, instead of one that is made up.")
@click.option("--resume", "resumed", metavar="RUN", shell_complete=run_ids, help="Go on with a run that has stopped.")
@click.option("--dry-run", is_flag=True, help="Print exactly what would be sent, and send nothing.")
@click.option("--detach", is_flag=True, help="Return at once; the run goes on.")
@click.option("--yes", is_flag=True, help="Spend without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print the launch as JSON.")
def train(
    recipe: str | None,
    spot: bool,
    infra: str | None,
    zones: tuple[str, ...],
    max_price: float | None,
    changes: tuple[str, ...],
    data_file: str | None,
    mean_life: str | None,
    deadline: str | None,
    budget: float | None,
    work: str | None,
    rules: tuple[str, ...],
    name: str | None,
    resumed: str | None,
    dry_run: bool,
    detach: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Fine-tune a model by a RECIPE: a name in recipes/ or a path.

    Without RECIPE it is vicuna-7b, and with --infra local smollm2-135m, which trains on this machine.
    """
    import datetime

    import msgspec

    from launcher import launch
    from launcher.budgets import allowed
    from launcher.ledger import Ledger, home
    from launcher.runs import LOCAL

    ledger = Ledger(home())
    wishes = launch.Wishes(
        deadline_hours=_hours(deadline, "--deadline"), budget_usd=budget, work_hours=_hours(work, "--work"),
        **dict(_rule(rule) for rule in rules),
    )  # fmt: skip
    if resumed is not None:
        _refuse_with_resume(recipe, (*changes, *([data_file] if data_file else [])), dry_run)
        _go_on(resumed, wishes, ledger, detach=detach, as_json=as_json)
        return
    if mean_life is not None:
        changes = (*changes, f"local.mean_life_seconds={_seconds(mean_life, '--mean-life')}")
    named = _named(recipe, changes, data_file, local=infra == LOCAL, yes=yes)
    now = datetime.datetime.now(datetime.UTC)
    run_id = name or launch.new_run_id(named.name, now)
    steered, clouds = (False, None) if infra == LOCAL else _ask_server()
    if steered:
        wishes = msgspec.structs.replace(wishes, budget_usd=allowed(budget, ledger, now))
    prepared = launch.prepare(
        named, spot=spot, infra=infra, zones=zones, max_price=max_price, run_id=run_id,
        wishes=wishes if steered else None, clouds=clouds,
    )  # fmt: skip
    if not as_json:
        _show_plan(prepared, wishes.deadline_hours, simulated=not dry_run)
    if clouds is not None and not steered:
        click.echo(launch.WITHOUT_PLUGIN, err=True)
    if dry_run:
        click.echo(prepared.text, nl=False)
        return
    if name is not None:
        launch.check_name(name, prepared.store, ledger)
    held = launch.check_inputs(named, prepared.store)
    if not as_json:
        click.echo(f"{named.recipe.data.conversations}: {held}", err=True)
    start = _launch_here if infra == LOCAL else _launch_there
    start(prepared, ledger, yes=yes, detach=detach, as_json=as_json)


def _named(
    recipe: str | None, changes: tuple[str, ...], data_file: str | None, *, local: bool, yes: bool
) -> "NamedRecipe":
    """The recipe with what was asked to be different."""
    from launcher.recipe import DEFAULT, DEFAULT_LOCAL, load

    if data_file is not None:
        from launcher.cli.data import for_training

        changes = (*changes, f"data.conversations={for_training(data_file, yes=yes)}")
    return load(recipe or (DEFAULT_LOCAL if local else DEFAULT), changes)


def _ask_server() -> tuple[bool, list[str] | None]:
    """Whether SkyPilot's server has our strategy, and its clouds. Of one that does not answer neither is known, and a
    plan can be made all the same."""
    from launcher import skypilot

    if skypilot.missing() or not skypilot.answers():
        return False, None
    return skypilot.has_plugin(), skypilot.enabled_clouds()


def _launch_here(prepared: "Prepared", ledger: "Ledger", *, yes: bool, detach: bool, as_json: bool) -> None:
    """On this machine, where nothing is to be agreed to."""
    from launcher import launch

    if not as_json:
        where = f"{prepared.store}/{prepared.run_id}"
        click.echo(f"run {prepared.run_id}, checkpoints in {where}; no money is spent", err=True)
    launch.record(prepared, ledger)
    _follow(prepared.run_id, ledger, detach=detach, as_json=as_json)


def _launch_there(prepared: "Prepared", ledger: "Ledger", *, yes: bool, detach: bool, as_json: bool) -> None:
    """Send it by SkyPilot, once a person has agreed to the dollars."""
    from launcher import launch, skypilot
    from launcher.errors import MissingPart

    if why := skypilot.missing() or skypilot.silent():
        raise MissingPart(f"{why} To try the same recipe's path here: vlaunch train --spot --infra local")
    launch.check_secrets(prepared.named)
    if not yes:
        click.echo(prepared.text, nl=False)
        click.confirm(f"Send it? {_dollars(prepared.plan)}", abort=True, err=True)
    job_id = launch.submit(prepared, ledger)
    click.echo(f"run {prepared.run_id} is SkyPilot's managed job {job_id}", err=True)
    _watch(prepared.run_id, ledger, detach=detach, as_json=as_json)


def _watch(run_id: str, ledger: "Ledger", *, detach: bool, as_json: bool) -> None:
    """Say what happens until the job ends; leaving changes nothing."""
    from launcher.errors import RunError
    from launcher.follow import Follower
    from launcher.runs import find, launched

    again = f"vlaunch status {run_id}; vlaunch logs {run_id} --follow; vlaunch cancel {run_id}"
    if detach:
        click.echo(f'{{"run_id": "{run_id}", "detached": true}}' if as_json else f"{run_id} goes on: {again}")
        return
    store = launched(find(ledger, run_id))["store"]
    say = (lambda line: click.echo(line, err=True)) if as_json else click.echo
    try:
        job = Follower(run_id, store, say).to_the_end()
    except KeyboardInterrupt:
        click.echo(f"\n{run_id} goes on without this terminal: {again}")
        return
    if as_json:
        from launcher.cli.cost import report_json

        click.echo(report_json(ledger, (run_id,)))
    if job.state != "finished":
        from launcher.launch import why_it_ended

        raise RunError(why_it_ended(run_id, ledger))
    if not as_json:
        click.echo(f"{run_id} has finished; what it cost: vlaunch cost report {run_id}")


def _go_on(run: str, wishes: "Wishes", ledger: "Ledger", *, detach: bool, as_json: bool) -> None:
    from launcher import launch
    from launcher.runs import LOCAL, find, launched

    records = find(ledger, run)
    if launched(records)["infra"] == LOCAL:
        _follow(run, ledger, detach=detach, as_json=as_json)
        return
    job_id = launch.resume_there(run, wishes, ledger)
    click.echo(f"run {records[0].run_id} goes on as SkyPilot's managed job {job_id}", err=True)
    _watch(records[0].run_id, ledger, detach=detach, as_json=as_json)


def _follow(run_id: str, ledger: "Ledger", *, detach: bool, as_json: bool) -> None:
    """Run it in this terminal, or leave it running."""
    from launcher import launch
    from launcher.runs import find

    run_id = find(ledger, run_id)[0].run_id
    if detach:
        launch.detach(run_id)
        if as_json:
            click.echo(f'{{"run_id": "{run_id}", "detached": true}}')
        else:
            click.echo(f"{run_id} goes on; see it with: vlaunch logs {run_id} --follow")
        return
    launch.run_here(run_id, ledger, (lambda line: click.echo(line, err=True)) if as_json else click.echo)
    if as_json:
        from launcher.cli.cost import report_json

        click.echo(report_json(ledger, (run_id,)))
        return
    click.echo(f"{run_id} has finished; what it cost: vlaunch cost report {run_id}")


def offers_table(title: str, offers: "Sequence[Offer]") -> "Table":
    """Places, machines and prices, for whatever is to be launched."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("place", overflow="fold")
    table.add_column("machine", overflow="fold")
    table.add_column("$/hour", justify="right")
    for offer in offers:
        machine = f"{offer.accelerator}:{offer.accelerator_count}" if offer.accelerator else offer.instance_type
        table.add_row(offer.place, machine, f"{offer.usd_per_hour:.2f}")
    return table


def _show_plan(prepared: "Prepared", deadline_hours: float | None, *, simulated: bool) -> None:
    """To standard error, so that --dry-run's output is the task alone; in a cloud with the simulated ways."""
    from rich.console import Console

    from launcher.cli.plan import show_simulated
    from launcher.runs import LOCAL

    plan = prepared.plan
    console = Console(file=sys.stderr, highlight=False)
    console.print(offers_table(f"{prepared.named.name}: where it may run, cheapest first", plan.offers))
    for title, estimate in (("expected", plan.estimate), ("on demand", plan.on_demand_estimate)):
        if estimate is not None:
            usd, hours = estimate.usd, estimate.hours
            console.print(f"{title}: ${usd[0]:,.0f} to ${usd[1]:,.0f} in {hours[0]:.1f} to {hours[1]:.1f} hours")
    if plan.on_demand is not None:
        beside = plan.on_demand
        console.print(f"on demand the cheapest is ${beside.usd_per_hour:.2f} an hour in {beside.place}")
    for assumption in plan.assumptions:
        console.print(f"assumed: {assumption}")
    if simulated and prepared.infra != LOCAL:
        show_simulated(prepared.named.recipe, plan.offers, plan.on_demand, deadline_hours)


def _dollars(plan: "Plan") -> str:
    """What agreeing to it may cost, in a sentence."""
    dearest = max(offer.usd_per_hour for offer in (*plan.offers, *plan.fallbacks))
    if plan.estimate is None:
        return f"Up to ${dearest:.2f} an hour; the recipe does not say how much work there is."
    beside = f"; on demand ${plan.on_demand_estimate.usd[1]:,.0f}" if plan.on_demand_estimate else ""
    return f"${plan.estimate.usd[0]:,.0f} to ${plan.estimate.usd[1]:,.0f} expected{beside}."


def _rule(text: str) -> tuple[str, Any]:
    """One `--rule`."""
    key, _, number = text.partition("=")
    allowed = ("restart_minutes", "retry_minutes", "tick_seconds", "max_restarts_on_errors")
    try:
        if key in allowed:
            return key, int(number) if key == "max_restarts_on_errors" else float(number)
    except ValueError:
        pass
    raise click.BadParameter(f"'{text}' is not KEY=NUMBER with one of {', '.join(allowed)}.", param_hint="--rule")


def _hours(text: str | None, option: str) -> float | None:
    return None if text is None else _seconds(text, option) / 3600


def _seconds(text: str, option: str) -> float:
    """`60s`, `2m`, `1h` or plain seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        return float(number) * unit
    except ValueError:
        raise click.BadParameter(f"'{text}' is not a time; write 60s, 2m or 1h.", param_hint=option) from None


def _refuse_with_resume(recipe: str | None, changes: tuple[str, ...], dry_run: bool) -> None:
    if recipe or changes or dry_run:
        raise click.UsageError("--resume goes on with the run as it was launched; give it alone.")
