"""The file in which SkyPilot's API server finds its plugins: our entry in it, and nothing else of it."""

import os
from pathlib import Path
from typing import Any

import yaml

from launcher.errors import SkyPilotError

ENTRY = "launcher.recovery.Plugin"
_AGAIN = "It holds when the API server starts again: sky api stop; sky api start"


def path() -> Path:
    """Where SkyPilot itself looks."""
    return Path(os.environ.get("SKYPILOT_SERVER_PLUGINS_CONFIG", "~/.sky/plugins.yaml")).expanduser()


def install() -> str:
    """What was done, in words. Raises SkyPilotError where the file cannot be read or written."""
    config = _read()
    if any(each.get("class") == ENTRY for each in config["plugins"]):
        return f"{path()} names the plugin already; nothing was changed."
    config["plugins"].append({"class": ENTRY})
    _write(config)
    return f"{path()} now names {ENTRY}. {_AGAIN}"


def uninstall() -> str:
    """What was done, in words. Raises SkyPilotError where the file cannot be read or written."""
    config = _read()
    kept = [each for each in config["plugins"] if each.get("class") != ENTRY]
    if kept == config["plugins"]:
        return f"{path()} does not name the plugin; nothing was changed."
    _write({**config, "plugins": kept})
    return f"{path()} does not name {ENTRY} any more. {_AGAIN}"


def _read() -> dict[str, Any]:
    try:
        config = yaml.safe_load(path().read_text())
    except FileNotFoundError:
        config = None
    except (OSError, yaml.YAMLError) as failure:
        raise SkyPilotError(f"{path()} cannot be read, so it was left as it is: {failure}") from None
    if config is None:
        config = {}
    if not isinstance(config, dict) or not isinstance(config.setdefault("plugins", []), list):
        raise SkyPilotError(
            f"{path()} is not what SkyPilot reads (a mapping with a list `plugins`); it was left as it is."
        )
    return config


def _write(config: dict[str, Any]) -> None:
    """All or nothing: the server may start at any moment."""
    partial = path().with_name(f"{path().name}.{os.getpid()}")
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(yaml.safe_dump(config, sort_keys=False))
        partial.replace(path())
    except OSError as failure:
        raise SkyPilotError(f"{path()} cannot be written: {failure.strerror}.") from None
