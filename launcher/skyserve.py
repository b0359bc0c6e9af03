"""SkyServe by SkyPilot's client: bring the text of a service up, give it another version, look at its replicas, take it
down. Every failure of SkyPilot comes out as a sentence. `import sky` takes seconds, so it happens inside functions.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from launcher.errors import MissingPart, RunError
from launcher.skypilot import accelerator_of

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class ServedReplica(msgspec.Struct, frozen=True, kw_only=True):
    """A replica as SkyServe sees it now."""

    number: int
    cluster: str
    """SkyPilot's name for its machine."""
    state: str
    """`ready`, `provisioning`, `preempted`, ...: SkyServe's own, in lower case."""
    version: int
    place: str
    """`aws/us-east-2/use2-az1`; empty before there is a machine."""
    spot: bool | None
    accelerator: str
    launched_at: float | None
    """Seconds since 1970; None before there is a machine."""
    usd_per_hour: float | None
    """By SkyPilot's catalog."""


def secrets_of(text: str) -> list[tuple[str, str]]:
    """Names and values of what the text names. Raises MissingPart where one is not set here."""
    names = yaml.safe_load(text).get("secrets", {})
    if lacking := [name for name in names if not os.environ.get(name)]:
        raise MissingPart(f"The secrets {', '.join(lacking)} are not set here; export them and try again.")
    return [(name, os.environ[name]) for name in names]


def up(text: str, workdir: Path) -> str:
    """Bring the service up as the text says, launched from `workdir`; SkyServe's own endpoint."""
    with _translated(), contextlib.chdir(workdir):
        import sky
        from sky import serve

        task = _task(text)
        _, endpoint = sky.get(serve.up(task, service_name=task.name))
        return str(endpoint)


def update(text: str, workdir: Path) -> None:
    """Replace the replicas of the service that the text names by what it says, in turn."""
    with _translated(), contextlib.chdir(workdir):
        import sky
        from sky import serve

        task = _task(text)
        sky.get(serve.update(task, service_name=task.name, mode=serve.UpdateMode.ROLLING))


def replicas(service: str) -> list[ServedReplica] | None:
    """None where SkyServe has no such service."""
    with _translated():
        import sky
        from sky import serve

        found = sky.get(serve.status([service]))
        return [_replica(info) for info in found[0]["replica_info"]] if found else None


def down(service: str) -> None:
    """Take it down; one that is not there is no error."""
    if replicas(service) is None:
        return
    with _translated():
        import sky
        from sky import serve

        sky.get(serve.down([service]))


def _task(text: str) -> Any:
    import sky

    return sky.Task.from_yaml_config(yaml.safe_load(text), secrets_overrides=secrets_of(text))


def _replica(info: dict[str, Any]) -> ServedReplica:
    resources = getattr(info.get("handle"), "launched_resources", None)
    parts = () if resources is None else (str(resources.cloud).lower(), resources.region, resources.zone)
    return ServedReplica(
        number=int(info["replica_id"]),
        cluster=str(info["name"]),
        state=info["status"].value.lower(),
        version=int(info["version"]),
        place="/".join(str(part) for part in parts if part),
        spot=None if resources is None else bool(resources.use_spot),
        accelerator="" if resources is None else accelerator_of(resources),
        launched_at=info["launched_at"],
        usd_per_hour=None if resources is None else float(resources.get_cost(3600)),
    )


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Whatever SkyPilot raises, as a sentence. Its client raises whatever its server pickled, so any class may come."""
    try:
        yield
    except (MissingPart, RunError):
        raise
    except ImportError as failure:
        raise MissingPart(
            f"SkyPilot cannot be used from this machine ({failure}): pip install 'vlaunch[cloud]', then `sky check`."
        ) from None
    except Exception as failure:
        said = " ".join(_CODES.sub("", str(failure)).split()) or type(failure).__name__
        raise RunError(f"SkyPilot says: {said}") from failure
