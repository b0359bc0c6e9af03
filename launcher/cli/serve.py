"""`vlaunch serve`: the plan in dollars, the service as it is sent, then replicas and one address in front of them."""

import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from launcher.ledger import Ledger
    from launcher.serve import Prepared
    from launcher.serve_plan import Rate, ServePlan


@click.command()
@click.argument("spec", required=False)
@click.option(
    "--model", "models", multiple=True, metavar="M",
    help="A model of the spec, or SOURCE or NAME=SOURCE: a finished run, a folder, a bucket, a hub name. May be given "
    "again.",
)  # fmt: skip
@click.option("--replicas", type=click.IntRange(min=1), metavar="N", help="How many replicas each model has at least.")
@click.option("--spot/--on-demand", default=True, show_default=True, help="Spot machines, or ones that stay.")
@click.option("--infra", metavar="INFRA", help="Where, in SkyPilot's words (aws, gcp/us-central1, ...), or 'local'.")
@click.option("--zone", "zones", multiple=True, metavar="Z", help="Only this zone; may be given again.")
@click.option("--max-price", type=float, metavar="USD_PER_HOUR", help="No machine above this price an hour.")
@click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value of the spec.")
@click.option("--gateway", metavar="URL", help="The gateway that replicas dial; with --infra local one is started.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
    help="With --infra local: the address's port; 0 takes a free one.",
)  # fmt: skip
@click.option(
    "--ask", "questions", multiple=True, metavar="QUESTION",
    help="With --infra local: ask this, again and again, until the market has taken what it takes; then end.",
)  # fmt: skip
@click.option("--update", metavar="SERVICE", help="Give a service that is up these models, a replica at a time.")
@click.option("--resume", metavar="SERVICE", help="Bring a local service up again whose launcher has ended.")
@click.option("--dry-run", is_flag=True, help="Print exactly what would be sent, and send nothing.")
@click.option("--detach", is_flag=True, help="Return at once; the service stays up until vlaunch down.")
@click.option("--yes", is_flag=True, help="Spend without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print plan and service as JSON; keys in docs/serving.md.")
def serve(
    *,
    port: int,
    questions: tuple[str, ...],
    resume: str | None,
    dry_run: bool,
    detach: bool,
    yes: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Serve models by a SPEC: a name in recipes/serve/ or a path.

    Without SPEC it is vicuna-7b, and with --infra local smollm2-135m, which answers on this machine.
    """
    from launcher import services
    from launcher.ledger import Ledger, home
    from launcher.local_gateway import free_port
    from launcher.runs import LOCAL

    ledger = Ledger(home())
    if resume is not None:
        if dry_run or any(choices[name] for name in ("spec", "models", "changes", "update")):
            raise click.UsageError("--resume brings the service up as it was; give it alone.")
        _keep_up(services.find(ledger, resume)[0], ledger, detach=detach, questions=questions)
        return
    prepared = _prepare(ledger, **choices)
    _show(prepared, as_json=as_json)
    if dry_run:
        if not as_json:
            click.echo(prepared.text, nl=False)
        return
    if prepared.infra != LOCAL:
        _send(prepared, ledger, update=choices["update"] is not None, yes=yes)
        return
    if update := choices["update"]:
        services.update_here(update, ledger, prepared)
        click.echo(f"{update} goes over in turn; see it with: vlaunch logs {update} --follow", err=True)
        return
    services.record(prepared, ledger, port=port or free_port())
    _keep_up(prepared.service, ledger, detach=detach, questions=questions)


def _prepare(
    ledger: "Ledger",
    *,
    spec: str | None,
    models: tuple[str, ...],
    replicas: int | None,
    spot: bool,
    infra: str | None,
    zones: tuple[str, ...],
    max_price: float | None,
    changes: tuple[str, ...],
    gateway: str | None,
    update: str | None,
) -> "Prepared":
    """Of an update, spec and place are those the service has."""
    import datetime

    from launcher import launch, serve_spec, services
    from launcher import serve as path
    from launcher.runs import LOCAL

    if update is not None:
        update, facts = services.find(ledger, update)
        spec, infra, spot = spec or facts["recipe"], facts["infra"] or None, facts["spot"]
        gateway = gateway or facts["gateway"]
    default = serve_spec.DEFAULT_LOCAL if infra == LOCAL else serve_spec.DEFAULT
    named = serve_spec.load(spec or default, changes, models=models, replicas=replicas)
    service = update or launch.new_run_id(named.name, datetime.datetime.now(datetime.UTC))
    return path.prepare(
        named, ledger, service=service, spot=spot, infra=infra, zones=zones, max_price=max_price, gateway=gateway
    )


def _send(prepared: "Prepared", ledger: "Ledger", *, update: bool, yes: bool) -> None:
    """To SkyServe, once the person has seen the dollars and agreed."""
    from launcher import services

    services.check_cloud(prepared)
    if not yes:
        click.confirm("This spends money, as shown above. Send it?", abort=True, err=True)
    if not update:
        services.record(prepared, ledger, port=0)
    services.send(prepared, update=update)
    click.echo(f"{prepared.service} comes up; see it with: sky serve status; end it with: vlaunch down", err=True)


def _keep_up(service: str, ledger: "Ledger", *, detach: bool, questions: tuple[str, ...]) -> None:
    """Here until it is stopped, or in a process of its own."""
    from launcher import launch, services

    address = services.find(ledger, service)[1]["gateway"]
    if detach:
        launch.detach(service, "serve")
        services.wait_until_kept(service)
        click.echo(f"{service} comes up at {address}; end it with: vlaunch down {service}", err=True)
        return
    click.echo(f"{service} at {address}; Ctrl-C ends it; no money is spent", err=True)
    services.run_here(service, ledger, click.echo, questions)
    click.echo(f"{service} is down; what it cost: vlaunch cost report {service}", err=True)


def _show(prepared: "Prepared", *, as_json: bool) -> None:
    """To standard error, so that --dry-run's output is the service alone."""
    import msgspec

    if as_json:
        plans = [msgspec.to_builtins(part.plan) for part in prepared.parts]
        document = {"service": prepared.service, "plans": plans, "services": [part.text for part in prepared.parts]}
        click.echo(msgspec.json.encode(document).decode())
        return
    for part in prepared.parts:
        _show_plan(part.plan)


def _show_plan(plan: "ServePlan") -> None:
    from rich.console import Console
    from rich.table import Table

    from launcher.cli.train import offers_table

    console = Console(file=sys.stderr, highlight=False)
    console.print(offers_table(f"{plan.model}: where a replica may run, cheapest first", plan.offers))
    money = Table(title="dollars", title_justify="left")
    for heading in ("", "an hour", "a month", "a million tokens at full load"):
        money.add_column(heading, justify="left" if not heading else "right")
    rows: tuple[tuple[str, Rate | None, tuple[float, float] | None], ...] = (
        ("expected", plan.expected, plan.usd_per_million_tokens),
        ("the same on demand", plan.on_demand_rate, plan.on_demand_usd_per_million_tokens),
        ("worst case", plan.worst, None),
    )
    for name, rate, tokens in rows:
        money.add_row(
            name,
            f"${rate.usd_per_hour:,.2f}" if rate else "unknown",
            f"${rate.usd_per_month:,.0f}" if rate else "unknown",
            f"${tokens[0]:,.2f} to ${tokens[1]:,.2f}" if tokens else "-",
        )
    console.print(money)
    if plan.tokens_per_second is not None:
        slow, fast = plan.tokens_per_second
        console.print(f"one replica in the first place generates {slow:,.0f} to {fast:,.0f} tokens a second")
    for assumption in plan.assumptions:
        console.print(f"assumed: {assumption}")
