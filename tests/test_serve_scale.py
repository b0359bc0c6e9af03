"""How many replicas there are, by what the gateway has to do: the rule, and a service that follows it."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from launcher.errors import RecipeError
from launcher.ledger import Ledger
from launcher.local_gateway import free_port
from launcher.recipe import LocalConfig
from launcher.serve_local import LocalService, marks
from launcher.serve_scale import Scaling
from launcher.serve_spec import ReplicasConfig, load
from market.offers import Offer

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 120.0


def followed(scaling: Scaling, moments: list[tuple[float, int]]) -> list[int]:
    """The number after each moment (time, requests), from one replica on."""
    have, seen = 1, []
    for now, requests in moments:
        have = scaling.choose(now, requests, have)
        seen.append(have)
    return seen


def test_more_replicas_come_when_the_work_stays_and_go_when_it_stays_away() -> None:
    scaling = Scaling(1, 3, 2.0, up_seconds=10, down_seconds=60)
    assert followed(scaling, [(0, 5), (5, 3), (10, 6), (11, 6), (21, 6), (22, 0), (60, 0), (82, 0)]) == [
        1, 1, 2, 2, 3, 3, 3, 1,
    ]  # fmt: skip


def test_a_moment_s_peak_or_lull_moves_nothing() -> None:
    scaling = Scaling(1, 9, 1.0, up_seconds=10, down_seconds=10)
    assert followed(scaling, [(0, 9), (9, 1), (10, 9), (19, 1), (20, 0)]) == [1, 1, 1, 1, 1]


def test_there_are_never_fewer_than_the_least_or_more_than_the_most() -> None:
    scaling = Scaling(1, 3, 1.0, up_seconds=0, down_seconds=0)
    assert followed(scaling, [(0, 1000), (1, 0)]) == [3, 1]


def test_a_spec_with_bounds_says_by_what_it_scales() -> None:
    with pytest.raises(RecipeError, match="max is above min, so"):
        load("tiny", ["replicas.max=4"])
    with pytest.raises(RecipeError, match="target_requests is 0; it must be above 0"):
        load("tiny", ["replicas.max=4", "replicas.target_requests=0"])
    assert load("tiny", ["replicas.max=4", "replicas.target_requests=3"]).spec.replicas.max == 4


SERVICE = f"""
envs: {{}}
setup: "true"
run: |
  exec {sys.executable} -m serving.replica --gateway "$VLAUNCH_GATEWAY" --model dummy --engine-model dummy \\
    --engine "http://127.0.0.1:$VLAUNCH_ENGINE_PORT" --ready-port "$VLAUNCH_READY_PORT" --grace-seconds 5 \\
    -- {sys.executable} {ROOT}/benchmarks/dummy_engine.py "$VLAUNCH_ENGINE_PORT"
"""


def offer(zone: str) -> Offer:
    return Offer(
        cloud="local", region="local", zone=zone, instance_type="", accelerator="", accelerator_count=0,
        usd_per_hour=1.0, spot=True, price_source="made up", price_date="2026-11-25",
    )  # fmt: skip


def wait(holds: Callable[[], bool], what: str) -> None:
    over = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < over, f"never {what}"
        time.sleep(0.05)


def test_a_service_grows_with_its_gateways_work_and_shrinks_again_without_a_failed_request(tmp_path: Path) -> None:
    said: list[str] = []
    service = LocalService(
        "scaled", {"dummy": SERVICE}, [offer("zone-a"), offer("zone-b")], offer("zone-c"),
        ReplicasConfig(min=1, max=2, target_requests=2, upscale_delay_seconds=0, downscale_delay_seconds=1),
        LocalConfig(start_seconds=0, max_preemptions=0, grace_seconds=10), tmp_path / "scaled", Ledger(tmp_path),
        said.append, token="a-token", port=free_port(),
    )  # fmt: skip
    (tmp_path / "scaled").mkdir()
    keeper = threading.Thread(target=service.run)
    keeper.start()
    answers: list[httpx.Response] = []

    def ask() -> None:
        body = {"model": "dummy", "messages": [{"role": "user", "content": "itl=20 x"}], "max_tokens": 100}
        while sum(" ready after " in line for line in said) < 2:
            answers.append(httpx.post(f"{service.gateway.address}/v1/chat/completions", json=body, timeout=60))

    try:
        wait(lambda: any(" ready after " in line for line in said), "one ready")
        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        wait(lambda: len(service.replicas) == 2, "two")
        for asker in askers:
            asker.join(PATIENCE_SECONDS)
        wait(lambda: len(service.replicas) == 1, "one again")
    finally:
        service.stop()
        keeper.join(PATIENCE_SECONDS)
    assert answers
    assert {answer.status_code for answer in answers} == {200}, answers[-1].text
    assert any("1 replicas become 2" in line for line in said)
    assert any("gone: no work for it" in line for line in said)
    assert marks("scaled") == set()
