"""SkyServe's autoscaling sees the requests that a gateway gets; an endpoint of the test's own stands for SkyServe's."""

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.config import SkyServeEndpoint
from tests.servers import free_port
from tests.serving_parts import PATIENCE_SECONDS, parts, wait_for_workers


class Endpoint:
    """Counts what comes, and says that no replica is ready."""

    def __init__(self) -> None:
        self.came: list[str] = []
        endpoint = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint.came.append(self.path)
                self.send_error(503)

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_skyserve_is_told_of_every_request_for_its_model_and_its_silence_harms_nobody(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    told = (
        SkyServeEndpoint(model="dummy", url=endpoint.address + "/"),
        SkyServeEndpoint(model="gone", url=f"http://127.0.0.1:{free_port()}"),
    )
    with parts(tmp_path) as serving:
        gateway = serving.gateway(skyserve=told)
        models = ("dummy", "gone=dummy", "other=dummy")
        serving.worker("worker", (gateway,), serving.engine("engine"), models=models)
        wait_for_workers(gateway, 1)
        for model in ("dummy", "gone", "other", "dummy", "dummy"):
            body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
            assert httpx.post(f"{gateway}/v1/chat/completions", json=body, timeout=60).status_code == 200
        over = time.monotonic() + PATIENCE_SECONDS
        while len(endpoint.came) < 3 and time.monotonic() < over:
            time.sleep(0.02)
        assert endpoint.came == ["/ready"] * 3
        assert "raceback" not in serving.log("gateway")
