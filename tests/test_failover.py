"""Workers killed, stalled and told to leave in the middle of answers: nothing is lost, nothing comes twice."""

import json
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.metadata_server import MetadataServer
from tests.servers import free_port
from tests.serving_parts import Parts, parts, wait_for_workers

TOKENS = 60
EXPECTED = [f"t{number}" for number in range(TOKENS)]


class Stream(threading.Thread):
    """One streamed answer, read as it comes."""

    def __init__(self, gateway: str, **more: Any) -> None:
        super().__init__(daemon=True)
        self.url = f"{gateway}/v1/chat/completions"
        messages = [{"role": "user", "content": "itl=30 count"}]
        self.body = {"model": "dummy", "messages": messages, "max_tokens": TOKENS, "stream": True, **more}
        self.events: list[dict[str, Any]] = []
        self.text = ""
        self.done = False
        self.enough = threading.Event()
        self.start()

    def run(self) -> None:
        with httpx.stream("POST", self.url, json=self.body, timeout=60) as response:
            for line in response.iter_lines():
                if line == "data: [DONE]":
                    self.done = True
                elif line.startswith("data: "):
                    self.events.append(json.loads(line[6:]))
                    for choice in self.events[-1].get("choices", []):
                        self.text += choice.get("delta", {}).get("content") or ""
                if self.text.count("t") >= 10:
                    self.enough.set()
        self.enough.set()

    @property
    def tokens(self) -> list[str]:
        return re.findall(r"t\d+", self.text)


def two_workers(serving: Parts, *flags: str, **settings: Any) -> str:
    gateway = serving.gateway(**settings)
    for name in ("one", "two"):
        serving.worker(name, (gateway,), serving.engine(f"engine-{name}", *flags))
    wait_for_workers(gateway, 2)
    return gateway


def running(serving: Parts) -> str:
    """The worker whose engine runs something; empty where none does."""
    for name in ("one", "two"):
        port = serving.processes[f"engine-{name}"].args[2]  # type: ignore[index]
        if re.search(r"running\{.*\} 1", httpx.get(f"http://127.0.0.1:{port}/metrics").text):
            return name
    return ""


@pytest.mark.parametrize("flags", [(), ("--vllm",)], ids=["by text", "by token ids"])
@pytest.mark.parametrize("victim", ["", "engine-"], ids=["worker", "engine"])
def test_a_killed_part_is_not_seen_in_the_stream(tmp_path: Path, flags: tuple[str, ...], victim: str) -> None:
    with parts(tmp_path) as serving:
        gateway = two_workers(serving, *flags)
        stream = Stream(gateway, stream_options={"include_usage": True}, temperature=0)
        stream.enough.wait(30)
        serving.kill(victim + running(serving))
        stream.join(30)
        assert stream.tokens == EXPECTED
        assert stream.done
        assert stream.events[-1]["usage"] == {
            "prompt_tokens": 3 if flags else 2,
            "completion_tokens": TOKENS,
            "total_tokens": TOKENS + (3 if flags else 2),
        }
        assert len({event["id"] for event in stream.events}) == 1
        assert "vlaunch_failovers_total" in httpx.get(f"{gateway}/metrics").text


@pytest.mark.parametrize("victim", ["", "engine-"], ids=["worker", "engine"])
def test_a_part_that_stands_still_is_not_seen_in_the_stream(tmp_path: Path, victim: str) -> None:
    with parts(tmp_path) as serving:
        gateway = two_workers(serving, stall_seconds=1.0)
        stream = Stream(gateway)
        stream.enough.wait(30)
        serving.processes[victim + running(serving)].send_signal(signal.SIGSTOP)
        stream.join(30)
        assert stream.tokens == EXPECTED
        assert stream.done


def test_a_worker_told_to_leave_hands_over_and_ends(tmp_path: Path) -> None:
    with parts(tmp_path) as serving:
        gateway = two_workers(serving)
        stream = Stream(gateway)
        stream.enough.wait(30)
        leaving = running(serving)
        serving.kill(leaving, signal.SIGTERM)
        assert not stream.done, "it waited for the answer instead of handing it over"
        assert serving.processes[leaving].returncode == 0
        stream.join(30)
        assert stream.tokens == EXPECTED


def test_a_worker_whose_cloud_gives_notice_hands_over_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MetadataServer() as cloud, parts(tmp_path) as serving:
        monkeypatch.setenv("GCE_METADATA_HOST", cloud.environment["GCE_METADATA_HOST"])
        gateway = serving.gateway()
        serving.worker("one", (gateway,), serving.engine("engine-one"), notice="gcp")
        wait_for_workers(gateway, 1)
        stream = Stream(gateway)
        stream.enough.wait(30)
        serving.worker("two", (gateway,), serving.engine("engine-two"))
        wait_for_workers(gateway, 2)
        cloud.announce(30)
        assert serving.processes["one"].wait(30) == 0
        assert "taken away" in serving.log("one")
        stream.join(30)
        assert stream.tokens == EXPECTED


def test_what_cannot_go_on_ends_with_an_error_event(tmp_path: Path) -> None:
    with parts(tmp_path) as serving:
        gateway = two_workers(serving)
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        stream = Stream(gateway, tools=[tool])
        stream.enough.wait(30)
        serving.kill(running(serving))
        stream.join(30)
        assert stream.events[-1]["error"]["code"] == "worker_lost"
        assert "it may call tools" in stream.events[-1]["error"]["message"]
        assert not stream.done


def test_a_lone_worker_that_comes_back_goes_on(tmp_path: Path) -> None:
    with parts(tmp_path) as serving:
        gateway = serving.gateway()
        engine = serving.engine("engine-one")
        serving.worker("one", (gateway,), engine)
        wait_for_workers(gateway, 1)
        stream = Stream(gateway)
        stream.enough.wait(30)
        serving.kill("one")
        serving.worker("one", (gateway,), engine)
        stream.join(30)
        assert stream.tokens == EXPECTED


def test_a_gateway_that_was_killed_has_its_workers_again_and_the_other_serves_meanwhile(tmp_path: Path) -> None:
    with parts(tmp_path) as serving:
        ports = (free_port(), free_port())
        gateways = tuple(serving.gateway(f"gateway-{port}", port=port) for port in ports)
        for name in ("one", "two"):
            serving.worker(name, gateways, serving.engine(f"engine-{name}"))
        for gateway in gateways:
            wait_for_workers(gateway, 2)
        serving.kill(f"gateway-{ports[0]}")
        stream = Stream(gateways[1])
        serving.gateway(f"gateway-{ports[0]}", port=ports[0])
        # Asked at once: the model is unknown until its workers have connected again, and that is waited for.
        body = {"model": "dummy", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        assert httpx.post(f"{gateways[0]}/v1/chat/completions", json=body, timeout=60).status_code == 200
        wait_for_workers(gateways[0], 2)
        stream.join(30)
        assert stream.tokens == EXPECTED


def test_an_answer_that_is_collected_survives_as_well(tmp_path: Path) -> None:
    with parts(tmp_path) as serving:
        gateway = two_workers(serving)
        body = {"model": "dummy", "messages": [{"role": "user", "content": "itl=30 x"}], "max_tokens": TOKENS}
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(httpx.post, f"{gateway}/v1/chat/completions", json=body, timeout=60)
            while not (busy := running(serving)):
                pass
            serving.kill(busy)
            document = answer.result().json()
        assert document["choices"][0]["message"]["content"].split() == EXPECTED
        assert document["usage"]["completion_tokens"] == TOKENS


def test_those_who_wait_in_line_outlive_the_workers_they_wait_for(tmp_path: Path) -> None:
    with parts(tmp_path) as serving:
        gateway = serving.gateway()
        for name in ("one", "two"):
            serving.worker(name, (gateway,), serving.engine(f"engine-{name}"), slots=1)
        wait_for_workers(gateway, 2)
        streams = [Stream(gateway, max_tokens=10) for _ in range(12)]
        for name in ("one", "two", "one"):
            streams[0].enough.wait(30)
            serving.kill(name)
            port = serving.processes[f"engine-{name}"].args[2]  # type: ignore[index]
            serving.worker(name, (gateway,), f"http://127.0.0.1:{port}", slots=1)
        for stream in streams:
            stream.join(60)
        assert [stream.tokens for stream in streams] == [EXPECTED[:10]] * 12
        assert "Traceback" not in serving.log("gateway")
