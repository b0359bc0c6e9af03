"""`vlaunch gateway`: one address in front of workers that come and go."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from serving.config import GatewayConfig


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), metavar="FILE", help="TOML: keys, tokens, limits.")
@click.option("--host", metavar="HOST", help="Where to listen; beyond this machine only with keys.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="0 takes a free one.  [default: 8080]")
@click.option("--stall-seconds", type=float, metavar="S", help="A stream silent for so long goes on elsewhere.")
@click.option(
    "--skyserve", multiple=True, metavar="MODEL=URL", envvar="VLAUNCH_SKYSERVE", show_envvar=True,
    help="Tell SkyServe's endpoint of a model's requests, so that it scales by them. May be given again.",
)  # fmt: skip
@click.option("--new-key", "key_name", metavar="NAME", help="Make an API key and the entry for FILE, and end.")
@click.option("--new-token", "token_name", metavar="NAME", help="Make a worker's token and its entry, and end.")
def gateway(
    path: Path | None,
    host: str | None,
    port: int | None,
    stall_seconds: float | None,
    skyserve: tuple[str, ...],
    key_name: str | None,
    token_name: str | None,
) -> None:
    """Serve OpenAI's API in front of the workers that plug in (see `vlaunch worker`).

    Without worker tokens in FILE, the one in VLAUNCH_WORKER_TOKEN is taken, or a new one is made and shown. Without
    keys in FILE, users ask with VLAUNCH_API_KEY, where that is set.
    """
    import msgspec

    from launcher import serving_process
    from launcher.errors import ServeError
    from serving.config import ApiKey, GatewayConfig, SkyServeEndpoint, hashed, load_gateway

    if key_name or token_name:
        if key_name:
            _show_new("keys", "key", key_name)
        if token_name:
            _show_new("worker_tokens", "token", token_name)
        return
    flags = {"host": host, "port": port, "stall_seconds": stall_seconds}
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        config = load_gateway(path) if path else GatewayConfig()
        endpoints = [SkyServeEndpoint(model=each.partition("=")[0], url=each.partition("=")[2]) for each in skyserve]
        config = msgspec.structs.replace(config, **given, skyserve=(*config.skyserve, *endpoints))
    except ValueError as failure:
        raise ServeError(f"{failure}.") from None
    if not config.keys and (key := os.environ.get("VLAUNCH_API_KEY")):
        config = msgspec.structs.replace(config, keys=(ApiKey(name="environment", sha256=hashed(key)),))
    if config.host not in ("127.0.0.1", "::1", "localhost") and not config.keys:
        raise ServeError(
            f"Listening on {config.host} lets others in, and there are no keys; make one with "
            "`vlaunch gateway --new-key NAME` and give its entry by --config, or set VLAUNCH_API_KEY."
        )
    if not config.worker_tokens:
        config = _with_token(config)
    serving_process.become("gateway", config)


def _with_token(config: "GatewayConfig") -> "GatewayConfig":
    """With the token of the environment, or a new one."""
    import msgspec

    from serving.config import WorkerToken, hashed, new_key

    token = os.environ.get("VLAUNCH_WORKER_TOKEN")
    if not token:
        token = new_key("token")
        click.echo(f"workers register with: VLAUNCH_WORKER_TOKEN={token}", err=True)
    return msgspec.structs.replace(config, worker_tokens=(WorkerToken(name="environment", sha256=hashed(token)),))


def _show_new(section: str, kind: str, name: str) -> None:
    from serving.config import hashed, new_key

    made = new_key(kind)
    click.echo(f"{made}\n\nIt is shown this once. The entry for the gateway's file:\n", err=True)
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    click.echo(f'[[{section}]]\nname = "{quoted}"\nsha256 = "{hashed(made)}"\nmodels = ["*"]')
