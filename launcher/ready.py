"""What a launch needs, looked at one by one, each with what to do about it. It changes nothing."""

import os
import secrets

import msgspec

from checkpoints.stores import StoreError, open_store
from launcher import plugin_file, skypilot
from launcher.errors import SkyPilotError
from launcher.recipe import NamedRecipe

_QUOTAS = {
    "aws": "AWS gives new accounts no spot GPUs: Service Quotas, EC2, 'All P4, P3 and P2 Spot Instance Requests', "
    "counted in vCPUs (96 for eight A100s)",
    "gcp": "GCP gives new projects no GPUs: IAM and admin, Quotas, 'Preemptible NVIDIA A100 GPUs' of each region, and "
    "'GPUs (all regions)'",
    "azure": "Azure counts spot vCPUs of a subscription: Quotas, 'Total Regional Spot vCPUs'",
}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a launch needs. `vlaunch check --json` prints a list of these."""

    name: str
    ok: bool | None
    """None: it could not be found out, or it is a hint."""
    found: str
    fix: str
    """What to do; empty where nothing is to be done."""


def look(named: NamedRecipe, store: str | None) -> list[Line]:
    """Every line, in the order in which they have to be mended."""
    lines = [_installed()]
    if lines[0].ok:
        lines.append(_server())
        if lines[-1].ok:
            clouds = skypilot.enabled_clouds()
            lines += [_clouds(clouds), _plugin()]
            lines += [
                Line(name=f"quota {cloud}", ok=None, found=_QUOTAS[cloud], fix="")
                for cloud in clouds
                if cloud in _QUOTAS
            ]
    return [*lines, *_store(store or named.recipe.checkpoints.store), *_secrets(named)]


def _installed() -> Line:
    if why := skypilot.missing():
        return Line(name="SkyPilot", ok=False, found="not installed", fix=why)
    return Line(name="SkyPilot", ok=True, found=skypilot.version(), fix="")


def _server() -> Line:
    where = skypilot.endpoint()
    if not skypilot.answers():
        fix = "sky api start, or SKYPILOT_API_SERVER_ENDPOINT=https://… for a shared one (sky api login)"
        return Line(name="API server", ok=False, found=f"{where} does not answer", fix=fix)
    try:
        healthy = skypilot.server_version()
    except SkyPilotError as failure:
        return Line(name="API server", ok=False, found=str(failure), fix=f"sky api login -e {where}")
    return Line(name="API server", ok=True, found=f"{where}, SkyPilot {healthy}", fix="")


def _clouds(clouds: list[str]) -> Line:
    if not clouds:
        return Line(name="clouds", ok=False, found="none is enabled", fix="sky check says what each lacks")
    return Line(name="clouds", ok=True, found=", ".join(clouds), fix="")


def _plugin() -> Line:
    if skypilot.has_plugin():
        return Line(name="plugin", ok=True, found="the server has the strategy VLAUNCH", fix="")
    fix = f"vlaunch plugin install on the server's machine ({plugin_file.path()} there), and start the server again"
    return Line(name="plugin", ok=False, found="the server recovers by EAGER_NEXT_REGION only", fix=fix)


def _store(uri: str) -> list[Line]:
    if not uri:
        fix = "--store, or --set checkpoints.store=s3://your-bucket/path at the launch"
        return [Line(name="store", ok=None, found="none is named", fix=fix)]
    probe = f"check-{secrets.token_hex(4)}"
    try:
        store = open_store(uri)
        first, second = store.create(probe, b"1"), store.create(probe, b"2")
        store.delete([probe])
    except StoreError as failure:
        return [Line(name="store", ok=False, found=str(failure), fix="see the sentence")]
    if first and not second:
        found = f"{uri} can be written and honours conditional writes"
        return [Line(name="store", ok=True, found=found, fix="")]
    found = f"{uri} lets a second writer overwrite what is there, so two attempts could both own a run"
    return [Line(name="store", ok=False, found=found, fix="another store, one that honours If-None-Match")]


def _secrets(named: NamedRecipe) -> list[Line]:
    return [
        Line(name=f"secret {name}", ok=True, found="set", fix="")
        if os.environ.get(name)
        else Line(name=f"secret {name}", ok=False, found="not set", fix=f"export {name}=…")
        for name in sorted(named.recipe.machine.secrets)
    ]
