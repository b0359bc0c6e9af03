"""Workers killed, stalled and told to leave in the middle of answers: nothing is lost, nothing comes twice."""

import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

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


def serving_it(gateway: str, serving: Parts) -> str:
    """The worker that has the stream: the only one whose engine runs something."""
    for name in ("one", "two"):
        port = serving.processes[f"engine-{name}"].args[2]  # type: ignore[index]
        if re.search(r"running\{.*\} 1", httpx.get(f"http://127.0.0.1:{port}/metrics").text):
            return name
    raise AssertionError("no engine runs anything")


@pytest.mark.parametrize("flags", [(), ("--vllm",)], ids=["by text", "by token ids"])
@pytest.mark.parametrize("victim", ["", "engine-"], ids=["worker", "engine"])
def test_a_killed_part_is_not_seen_in_the_stream(tmp_path: Path, flags: tuple[str, ...], victim: str) -> None:
    with parts(tmp_path) as serving:
        gateway = two_workers(serving, *flags)
        stream = Stream(gateway, stream_options={"include_usage": True}, temperature=0)
        stream.enough.wait(30)
        serving.kill(victim + serving_it(gateway, serving))
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
        serving.processes[victim + serving_it(gateway, serving)].send_signal(signal.SIGSTOP)
        stream.join(30)
        assert stream.tokens == EXPECTED
        assert stream.done


def test_a_worker_told_to_leave_hands_over_and_ends(tmp_path: Path) -> None:
    with parts(tmp_path) as serving:
        gateway = two_workers(serving)
        stream = Stream(gateway)
        stream.enough.wait(30)
        leaving = serving_it(gateway, serving)
        serving.kill(leaving, signal.SIGTERM)
        assert not stream.done, "it waited for the answer instead of handing it over"
        assert serving.processes[leaving].returncode == 0
        stream.join(30)
        assert stream.tokens == EXPECTED


def test_what_cannot_go_on_ends_with_an_error_event(tmp_path: Path) -> None:
    with parts(tmp_path) as serving:
        gateway = two_workers(serving)
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        stream = Stream(gateway, tools=[tool])
        stream.enough.wait(30)
        serving.kill(serving_it(gateway, serving))
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
