"""A cloud's notice, asked as each cloud wants it, of real HTTP servers that play its metadata server."""

import asyncio
import functools
import http.server
import json
import os
import signal
import sys
import threading
from pathlib import Path

import aiohttp
import httpx
import pytest

from serving.config import CLOUDS, WorkerConfig
from serving.notice import announced
from tests.metadata_server import MetadataServer
from tests.servers import free_port
from tests.serving_parts import TOKEN, parts, wait_for_workers


def asked(where: str, environment: dict[str, str]) -> bool:
    async def ask() -> bool:
        async with aiohttp.ClientSession() as session:
            return await announced(session, where, environment)

    return asyncio.run(ask())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_cloud_is_asked_as_it_wants_to_be_and_says_nothing_before_it_gives_notice(cloud: str) -> None:
    with MetadataServer() as server:
        assert not asked(cloud, server.environment)
        server.announce(30)
        assert asked(cloud, server.environment)


def test_any_other_address_gives_notice_by_answering_200(tmp_path: Path) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/going"
        assert not asked(address, {})
        (tmp_path / "going").write_text("")
        assert asked(address, {})
        server.shutdown()


def test_a_worker_is_told_who_gives_notice_or_refuses() -> None:
    with pytest.raises(ValueError, match="'aw' is not an address"):
        WorkerConfig(gateways=("http://g",), models=("m",), notice="aw")


def test_a_replica_whose_cloud_gives_notice_is_not_ready_any_more_and_does_not_come_back(tmp_path: Path) -> None:
    with MetadataServer() as cloud, parts(tmp_path) as serving:
        gateway, ready, engine = serving.gateway(), free_port(), free_port()
        where = {"SKYPILOT_CLUSTER_INFO": json.dumps({"cloud": "AWS", "region": "r"}), "VLAUNCH_WORKER_TOKEN": TOKEN}
        flags = ["--gateway", gateway, "--model", "dummy", "--engine-model", "dummy", "--ready-port", str(ready)]
        command = [sys.executable, "benchmarks/dummy_engine.py", str(engine)]
        serving.start(
            "replica",
            [sys.executable, "-m", "serving.replica", *flags, "--engine", f"http://127.0.0.1:{engine}", "--", *command],
            {**os.environ, **cloud.environment, **where},
        )
        try:
            wait_for_workers(gateway, 1)
            cloud.announce(120)
            wait_for_workers(gateway, 0)
            serving.wait_for_log("replica", "leaving")
            answer = httpx.get(f"http://127.0.0.1:{ready}/ready")
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
            assert serving.processes["replica"].poll() is None, "SkyServe takes a replica that ends for one that failed"
        finally:  # killed by -9 it would leave its engine behind
            serving.kill("replica", signal.SIGTERM)
        assert serving.processes["replica"].returncode == 0
