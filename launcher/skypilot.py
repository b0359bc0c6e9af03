"""The client side of SkyPilot: send a task's text as a managed job, find it again by the run's id, read what it cost.
Every failure of SkyPilot comes out as a sentence. `import sky` takes seconds, so it happens inside functions only.
"""

import contextlib
import datetime
import importlib.metadata
import importlib.util
import io
import os
import re
import socket
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from launcher import gateway_yaml
from launcher.errors import MissingPart, SkyPilotError

_PLUGIN = "vlaunch"
_STATES = {
    "PENDING": "queued",
    "SUBMITTED": "queued",
    "STARTING": "starting",
    "RUNNING": "running",
    "RECOVERING": "recovering",
    "CANCELLING": "cancelling",
    "SUCCEEDED": "finished",
    "CANCELLED": "cancelled",
}
"""SkyPilot's states in ours; all of its FAILED_… are `failed`."""
OVER = ("finished", "cancelled", "failed")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A managed job as SkyPilot sees it now."""

    job_id: int
    state: str
    place: str
    """`slurm/sim/spot-a`; empty before there is a machine."""
    recoveries: int
    why: str
    """SkyPilot's reason, where it has one."""

    @property
    def over(self) -> bool:
        return self.state in OVER


class Incarnation(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time for which SkyPilot counts the machines of a job or of a service's replica as paid."""

    cluster: str = ""
    """SkyPilot's name for them."""
    place: str
    spot: bool
    accelerator: str
    begin: float
    """Seconds since 1970."""
    end: float | None
    """None while it runs."""
    usd_per_hour: float
    """All nodes."""


def missing() -> str:
    """Why this machine cannot talk to SkyPilot; empty where it can."""
    if importlib.util.find_spec("sky") is None:
        return "SkyPilot is not installed on this machine: pip install 'vlaunch[cloud]', then `sky check`."
    return ""


def version() -> str:
    return importlib.metadata.version("skypilot")


def endpoint() -> str:
    """Where SkyPilot's API server is for this user, as SkyPilot itself looks it up."""
    if given := os.environ.get("SKYPILOT_API_SERVER_ENDPOINT"):
        return given.rstrip("/")
    with contextlib.suppress(OSError, yaml.YAMLError):
        config = yaml.safe_load(Path("~/.sky/config.yaml").expanduser().read_text()) or {}
        if configured := (config.get("api_server") or {}).get("endpoint"):
            return str(configured).rstrip("/")
    return "http://127.0.0.1:46580"


def answers() -> bool:
    """Whether something listens where the API server should be; asked without loading SkyPilot."""
    url = urllib.parse.urlsplit(endpoint())
    port = url.port or (443 if url.scheme == "https" else 80)
    with contextlib.suppress(OSError), socket.create_connection((url.hostname or "", port), timeout=3):
        return True
    return False


def silent() -> str:
    """Why the server cannot be used now; empty where it answers."""
    if answers():
        return ""
    return (
        f"SkyPilot's API server at {endpoint()} does not answer: start it with `sky api start`, or set "
        "SKYPILOT_API_SERVER_ENDPOINT to a shared one."
    )


def server_version() -> str:
    """Raises SkyPilotError where the server wants a login or is not well."""
    with _translated():
        from sky.client import sdk

        return str(sdk.api_info().version)


def has_plugin() -> bool:
    """Whether the server knows our recovery strategy. Raises SkyPilotError where it does not answer."""
    with _translated():
        from sky.server import common

        response = common.make_authenticated_request("GET", "/api/plugins")
        response.raise_for_status()
        return any(plugin.get("name") == _PLUGIN for plugin in response.json()["plugins"])


def enabled_clouds() -> list[str]:
    """Lower-case names. Raises SkyPilotError."""
    with _translated():
        import sky
        from sky.client import sdk

        return sorted(str(cloud).lower() for cloud in sky.get(sdk.enabled_clouds()))


def submit(text: str, workdir: Path) -> int:
    """Send the task as it is, with `workdir` as the folder it is launched from; the managed job's id.

    Secrets are named in the text; their values come from this process's environment and travel as SkyPilot's secrets.
    """
    with _translated(), contextlib.chdir(workdir):
        import sky
        from sky import jobs

        config = yaml.safe_load(text)
        secrets = [(name, os.environ[name]) for name in config.get("secrets", {})]
        task = sky.Task.from_yaml_config(config, secrets_overrides=secrets)
        ids, _ = sky.get(jobs.launch(task, name=task.name))
        if not ids:
            raise SkyPilotError(f"SkyPilot at {endpoint()} took the task and gave it no managed job.")
        return int(ids[0])


def jobs_of(run_id: str) -> list[Job]:
    """Every managed job of a run, oldest first: one, and one more for each time a person went on with it."""
    with _translated():
        import sky
        from sky import jobs

        records, *_ = sky.get(jobs.queue_v2(refresh=False, all_users=True, name_match=run_id, fields=None))
        found = [_job(record) for record in records if record["job_name"] == run_id]
        return sorted(found, key=lambda job: job.job_id)


def job_of(run_id: str) -> Job:
    """The newest. Raises SkyPilotError where there is none."""
    found = jobs_of(run_id)
    if not found:
        raise SkyPilotError(
            f"SkyPilot at {endpoint()} has no managed job of the run {run_id}. It was launched by another server; set "
            "SKYPILOT_API_SERVER_ENDPOINT to that one."
        )
    return found[-1]


def incarnations(run_id: str, job_ids: list[int]) -> list[Incarnation]:
    """What SkyPilot counts as paid for these jobs of a run, oldest first. A cluster that never ran is not there."""
    with _translated():
        from sky.jobs import utils

        clusters = {utils.generate_managed_job_cluster_name(run_id, job_id) for job_id in job_ids}
        return _paid(clusters.__contains__)


def replicas_paid(services: Sequence[str]) -> list[Incarnation]:
    """The same for all replicas of these services; none where SkyServe's controller has a machine and records of its
    own. Raises SkyPilotError."""
    if why := silent():
        raise SkyPilotError(why)
    with _translated():
        # As sky.serve.serve_utils.generate_replica_cluster_name writes it.
        name = re.compile(rf"(?:{'|'.join(map(re.escape, services))})-\d+")
        return _paid(lambda cluster: name.fullmatch(cluster) is not None)


def _paid(wanted: Callable[[str], bool]) -> list[Incarnation]:
    import sky

    rows = [row for row in sky.get(sky.cost_report(days=3650)) if wanted(row["name"])]
    return sorted((each for row in rows for each in _incarnations(row)), key=lambda each: each.begin)


def controllers() -> list[Incarnation]:
    """The machines on which SkyPilot's own controllers of jobs and services ran, none where the server does that work
    itself; and those of our gateways."""
    with _translated():
        from sky.utils import common

        begin = (common.JOB_CONTROLLER_PREFIX, common.SKY_SERVE_CONTROLLER_PREFIX, gateway_yaml.NAME)
        return _paid(lambda cluster: cluster.startswith(begin))


def cancel(job_id: int) -> None:
    """Ask SkyPilot to end the job and take down its machines."""
    with _translated():
        import sky
        from sky import jobs

        sky.get(jobs.cancel(job_ids=[job_id]))


def follow_log(job_id: int) -> Iterator[str]:
    """What the job says, line by line until it ends."""
    with _translated():
        from sky import jobs

        for line in jobs.tail_logs(job_id=job_id, follow=True, preload_content=False):
            if line is not None:  # a sign of life
                yield _CODES.sub("", line).rstrip()


def log(job_id: int, tail: int | None = None) -> list[str]:
    """What the job has said, or its last lines; nothing where no machine has run."""
    heard = io.StringIO()
    with _translated():
        from sky import jobs

        jobs.tail_logs(job_id=job_id, follow=False, tail=tail, output_stream=heard)
    return [_CODES.sub("", line) for line in heard.getvalue().splitlines()]


def _job(record: Any) -> Job:
    status = record["status"].value
    place = "/".join(str(record.get(key) or "") for key in ("cloud", "region", "zone")).strip("/")
    cloud, slash, rest = place.partition("/")
    return Job(
        job_id=int(record["job_id"]),
        state=_STATES.get(status, "failed"),
        place="" if cloud in ("", "-") else cloud.lower() + slash + rest,
        recoveries=int(record.get("recovery_count") or 0),
        why=_plain(record.get("failure_reason") or record.get("details") or ""),
    )


def _incarnations(row: dict[str, Any]) -> Iterator[Incarnation]:
    resources = row["resources"]
    parts = (str(resources.cloud).lower(), resources.region, resources.zone)
    for begin, end in row["usage_intervals"]:
        yield Incarnation(
            cluster=row["name"],
            place="/".join(part for part in parts if part),
            spot=bool(resources.use_spot),
            accelerator=accelerator_of(resources),
            begin=float(begin),
            end=None if end is None else float(end),
            usd_per_hour=float(resources.get_cost(3600)) * row["num_nodes"],
        )


def accelerator_of(resources: Any) -> str:
    """`A100:8` of SkyPilot's resources; empty where they have none."""
    return ",".join(f"{name}:{count}" for name, count in (resources.accelerators or {}).items())


_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def _plain(text: str) -> str:
    """One line without colours, and without SkyPilot's names of its own classes."""
    line = " ".join(_CODES.sub("", text).split())
    return re.sub(r"^(?:\[?sky\.exceptions\.)?\w+(?:Error|Exception)\]?:? ", "", line)


def catalog(cloud: str) -> tuple[Path, str]:
    """SkyPilot's catalog file of a cloud, fetched anew where it can be, and of what day it is. Raises SkyPilotError."""
    with _translated():
        from sky.catalog import common

        path = Path(common.get_catalog_path(f"{cloud}/vms.csv"))
        before = path.stat() if path.exists() else None
        len(common.read_catalog(f"{cloud}/vms.csv", pull_frequency_hours=0).columns)
        after = path.stat()
    today = datetime.datetime.now(datetime.UTC).date()
    if before is not None and before.st_ino == after.st_ino:  # it was not replaced: no network, or the user's own file
        day = datetime.datetime.fromtimestamp(before.st_mtime, datetime.UTC).date()
        return path, f"file of {day}, not fetched on {today}"
    return path, f"fetched {today}, the catalog's own day unknown"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Whatever SkyPilot raises, as a sentence. Its client raises whatever its server pickled, so any class may come."""
    if why := missing():
        raise MissingPart(why)
    try:
        yield
    except SkyPilotError:
        raise
    except KeyError as failure:
        name = failure.args[0]
        raise SkyPilotError(f"The secret {name} is not set here; export {name} and launch again.") from None
    except Exception as failure:
        said = _plain(str(failure)) or type(failure).__name__
        raise SkyPilotError(f"SkyPilot at {endpoint()} says: {said}") from failure
