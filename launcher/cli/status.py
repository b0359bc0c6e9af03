"""`vlaunch status`: what runs there are and how they stand."""

import click


@click.command()
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def status(run: str | None, as_json: bool) -> None:
    """How runs stand: state, steps, machines, dollars. Without RUN, all of them."""
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from launcher.cli.cost import build, dollars

    report = build((run,) if run else ())
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    if not report.runs:
        click.echo("There is no run yet; begin one with: vlaunch train --spot --infra local")
        return
    table = Table()
    for heading in ("run", "state", "step", "loss", "machines", "taken away", "spent"):
        table.add_column(heading, overflow="fold", justify="left" if heading in ("run", "state") else "right")
    for each in report.runs:
        table.add_row(
            each.run_id,
            each.state,
            f"{each.step}/{each.steps}" if each.steps else "-",
            f"{each.last_loss:.4f}" if each.last_loss is not None else "-",
            str(len(each.attempts)),
            str(each.preemptions),
            dollars(each.usd_spent) + (" simulated" if each.simulated else ""),
        )
    Console().print(table)
    for each in report.runs:
        if run and each.state in ("stopped", "launcher died"):
            click.echo(f"go on with: vlaunch train --resume {each.run_id}")
