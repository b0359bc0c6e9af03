"""Gateways of others to measure beside ours: vllm-router in a virtual environment of its own, SkyServe's balancer from
the skypilot that is installed here, told of its replicas by a stand-in for SkyServe's controller."""

import subprocess
import sys
from pathlib import Path

from aiohttp import web

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-peers"
VLLM_ROUTER = "vllm-router>=0.1"


def install() -> None:
    """Once; vllm-router's dependencies stay out of our environment."""
    if (VENV / "bin" / "vllm-router").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    subprocess.run([str(VENV / "bin" / "pip"), "install", "--quiet", VLLM_ROUTER], check=True)


def vllm_router(port: int, metrics_port: int, engines: list[str]) -> list[str]:
    address = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(metrics_port)]
    return [str(VENV / "bin" / "vllm-router"), *address, "--policy", "round_robin", "--worker-urls", *engines]


def skyserve_balancer(port: int, controller: str) -> list[str]:
    flags = ["--controller-addr", controller, "--load-balancer-port", str(port)]
    return [sys.executable, "-m", "sky.serve.load_balancer", *flags, "--load-balancing-policy", "round_robin"]


class Controller:
    """Says which replicas are ready, as SkyServe's controller does."""

    def __init__(self, engines: list[str]) -> None:
        self.engines = engines

    async def sync(self, request: web.Request) -> web.Response:
        return web.json_response({"replica_info": {engine: {} for engine in self.engines}})

    async def start(self, port: int) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/controller/load_balancer_sync", self.sync)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner
