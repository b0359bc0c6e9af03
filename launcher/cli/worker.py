"""`vlaunch worker`: plugs an engine into gateways."""

import click


@click.command()
@click.option("--gateway", "gateways", multiple=True, required=True, metavar="URL", help="May be given again.")
@click.option(
    "--model", "models", multiple=True, required=True, metavar="NAME[=ENGINE_NAME]", help="May be given again."
)
@click.option(
    "--engine", default="http://127.0.0.1:8000", show_default=True, metavar="URL", help="An OpenAI-compatible server."
)
@click.option(
    "--kind",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "vllm", "transformers", "openai"]),
    help="How the engine goes on with an answer.",
)
@click.option("--slots", type=click.IntRange(1), default=256, show_default=True, help="Requests at a time.")
@click.option(
    "--tokenizer",
    default="",
    metavar="FOLDER",
    help="For transformers: where the chat template is.  [default: the engine's model]",
)
@click.option("--name", default="", metavar="NAME", help="Shown in logs.  [default: host and process]")
@click.option(
    "--notice", default="", metavar="WHO",
    help="Who says that the machine will be taken away: aws, gcp, azure, or an address that answers 200 from then on.",
)  # fmt: skip
def worker(
    gateways: tuple[str, ...],
    models: tuple[str, ...],
    engine: str,
    kind: str,
    slots: int,
    tokenizer: str,
    name: str,
    notice: str,
) -> None:
    """Plug the engine on this machine into gateways, by dialling out; no port needs to be open.

    The registration token is read from VLAUNCH_WORKER_TOKEN.
    """
    import os

    from launcher import serving_process
    from launcher.errors import ServeError
    from serving.config import WorkerConfig

    token = os.environ.get("VLAUNCH_WORKER_TOKEN", "")
    if not token:
        raise ServeError("VLAUNCH_WORKER_TOKEN is not set; the gateway shows a token when it starts without one.")
    try:
        config = WorkerConfig(
            gateways=gateways,
            models=models,
            engine=engine,
            token=token,
            name=name,
            slots=slots,
            kind=kind,
            tokenizer=tokenizer,
            notice=notice,
        )
    except ValueError as failure:
        raise ServeError(f"{failure}.") from None
    serving_process.become("worker", config)
