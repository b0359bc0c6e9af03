"""This process becomes a gateway or a worker: the laptop's command loads none of their libraries itself."""

import importlib.util
import os
import sys
from typing import NoReturn

import msgspec

from launcher.errors import MissingPart
from serving.config import ENVIRONMENT, GatewayConfig, WorkerConfig


def environment(config: GatewayConfig | WorkerConfig) -> dict[str, str]:
    """The variables `python -m serving` is started with."""
    return {**os.environ, ENVIRONMENT: msgspec.json.encode(config).decode()}


def become(part: str, config: GatewayConfig | WorkerConfig) -> NoReturn:
    """`part` is `gateway` or `worker`. Signals then reach it directly."""
    for library in ("aiohttp", "uvloop", "prometheus_client"):
        if importlib.util.find_spec(library) is None:
            raise MissingPart(f"{library} is not installed; install it with: pip install 'vlaunch[serve]'")
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "serving", part], environment(config))
