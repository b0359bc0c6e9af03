"""What strangers do to a port: odd bodies, slow and idle and greedy clients. No 500, no traceback, bounded memory."""

import asyncio
import contextlib
import gzip
import resource
import socket
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from serving import wire
from serving.asked import ENDPOINTS
from serving.openapi import document
from tests.serving_parts import PATIENCE_SECONDS, TOKEN, Parts, parts, wait_for_workers

IDLE = 10_000
EXAMPLES = 15


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """Half the connections are allowed that test process and gateway may hold open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with parts(tmp_path_factory.mktemp("abuse")) as made:
        yield made
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def gateway(serving: Parts) -> str:
    address = serving.gateway(client_seconds=3.0, connection_limit=IDLE // 2, body_megabytes=1.0)
    serving.worker("worker", (address,), serving.engine("engine"))
    wait_for_workers(address, 1)
    return address


SCHEMA = schemathesis.openapi.from_dict(document(with_keys=False))
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_the_api_does_what_its_document_says(gateway: str, operation: Any) -> None:
    """schemathesis' own pytest plugin does not run under pytest 9.2, so its cases are drawn by hypothesis."""

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def ask(case: schemathesis.Case) -> None:
        response = case.call(base_url=gateway)
        assert response.status_code < 500 or response.json()["error"]["code"] == "no_worker_ready"
        case.validate_response(response)

    ask()


WITH_BODIES = [operation for operation in OPERATIONS if operation.body]


@pytest.mark.parametrize("operation", WITH_BODIES, ids=lambda operation: operation.label)
def test_what_the_document_forbids_is_refused(gateway: str, operation: Any) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask(case: schemathesis.Case) -> None:
        assert 400 <= case.call(base_url=gateway).status_code < 500

    ask()


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    endpoint=st.sampled_from(ENDPOINTS),
    body=st.dictionaries(
        st.sampled_from(
            ["model", "messages", "prompt", "input", "stream", "n", "max_tokens", "stop", "tools", "temperature"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("dummy"),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content"]), inner),
            max_leaves=6,
        ),
    ),
)
def test_no_body_is_answered_with_a_failure_of_ours(gateway: str, endpoint: str, body: dict[str, Any]) -> None:
    """Engines may fail on what the gateway passes on; then it is they who are named."""
    response = httpx.post(f"{gateway}/v1/{endpoint}", json=body, timeout=60)
    assert response.status_code != 500
    if response.status_code >= 400:
        assert response.json()["error"]["code"]


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(endpoint=st.sampled_from(ENDPOINTS), body=st.binary(max_size=200))
def test_no_bytes_are_answered_with_a_failure_of_ours(gateway: str, endpoint: str, body: bytes) -> None:
    assert httpx.post(f"{gateway}/v1/{endpoint}", content=body).json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "nonsense"])
def test_a_body_that_is_not_packed_as_it_says_is_refused(gateway: str, encoding: str) -> None:
    headers = {"Content-Encoding": encoding}
    assert httpx.post(f"{gateway}/v1/chat/completions", content=b"garbage", headers=headers).status_code == 400


def test_a_small_body_that_unpacks_to_a_large_one_is_refused_without_being_kept(serving: Parts, gateway: str) -> None:
    process = psutil.Process(serving.processes["gateway"].pid)
    before, headers = process.memory_info().rss, {"Content-Encoding": "gzip"}
    packed = gzip.compress(b" " * 200_000_000, 1)
    for _ in range(3):
        assert httpx.post(f"{gateway}/v1/chat/completions", content=packed, headers=headers).status_code == 413
    assert process.memory_info().rss - before < 50e6


def test_a_worker_that_sends_what_is_no_record_is_cut_off_and_its_requests_go_on_elsewhere(
    serving: Parts, gateway: str
) -> None:
    async def misbehave(data: bytes) -> bool:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(gateway + wire.PATH, headers=headers) as socket,
        ):
            await socket.send_bytes(wire.encode([wire.Hello("odd", ["dummy"], 1), wire.Beat(True, 0, 0, 0.0)]))
            await socket.receive()
            await socket.send_bytes(data)
            return (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)

    for data in (b"\xc1 nonsense", b"\x91" * 5000, wire.encode([wire.Welcome()])):
        assert asyncio.run(misbehave(data))
    # Words on requests it was never given change nothing.
    words = [
        wire.Text(7, ["x"], 1, []),
        wire.End(9, "stop", 0, 0),
        wire.Whole(3, 200, b"{}"),
        wire.Hello("b", ["x"], 1),
    ]
    with contextlib.suppress(TimeoutError):
        asyncio.run(asyncio.wait_for(misbehave(wire.encode(words)), 0.5))
    body = {"model": "dummy", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    assert httpx.post(f"{gateway}/v1/chat/completions", json=body, timeout=60).status_code == 200


def test_no_failure_so_far_was_ours(serving: Parts, gateway: str) -> None:
    assert "raceback" not in serving.log("gateway")
    assert httpx.get(f"{gateway}/health").status_code == 200


def address_of(gateway: str) -> tuple[str, int]:
    host, port = gateway.removeprefix("http://").split(":")
    return host, int(port)


def ended(connection: socket.socket) -> bytes:
    """What was said until the other side closed; a test that waits for ever fails by its timeout."""
    connection.settimeout(PATIENCE_SECONDS)
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            said += data
    return said


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", b""),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ", b""),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", b"408"),
        (b"\x16\x03\x01\x02\x00 not http", b"400"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    ],
    ids=["silent", "half a head", "half a body", "not HTTP", "a long line"],
)
def test_who_does_not_get_on_with_it_is_shown_out(gateway: str, sent: bytes, answered: bytes) -> None:
    with socket.create_connection(address_of(gateway)) as connection:
        connection.sendall(sent)
        said = ended(connection)
    assert answered in said.partition(b"\r\n")[0]


def test_who_takes_nothing_of_an_answer_is_cut_off(serving: Parts, gateway: str) -> None:
    body = b'{"model": "dummy", "messages": [{"role": "user", "content": "x"}], "max_tokens": 200000, "stream": true}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    process = psutil.Process(serving.processes["gateway"].pid)
    before = process.memory_info().rss
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address_of(gateway))
        connection.sendall(head + body)
        serving.wait_for_log("gateway", "client cut off")
        assert process.memory_info().rss - before < 200e6


def test_large_bodies_are_refused_without_being_kept(serving: Parts, gateway: str) -> None:
    process = psutil.Process(serving.processes["gateway"].pid)
    before = process.memory_info().rss
    for _ in range(5):
        response = httpx.post(f"{gateway}/v1/chat/completions", content=b"x" * 20_000_000)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
    assert process.memory_info().rss - before < 50e6


def test_ten_thousand_idle_connections_keep_nobody_out(serving: Parts, gateway: str) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < IDLE + 200:
        pytest.skip(f"this machine allows no {IDLE} open files")
    process = psutil.Process(serving.processes["gateway"].pid)
    before = process.memory_info().rss
    idle = []
    try:
        for _ in range(IDLE):
            connection = socket.socket()
            connection.connect(address_of(gateway))
            idle.append(connection)
        assert httpx.get(f"{gateway}/health", timeout=60).status_code == 200
        assert process.memory_info().rss - before < 300e6
        deadline = time.monotonic() + PATIENCE_SECONDS
        while process.num_fds() > IDLE // 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert process.num_fds() < IDLE // 2, "idle connections are never closed"
    finally:
        for connection in idle:
            connection.close()


def test_a_wrong_path_into_the_worker_door_is_refused(gateway: str) -> None:
    for headers in ({}, {"Authorization": "Bearer " + "x" * 4000}, {"Authorization": "Basic eDp5"}):
        assert httpx.get(f"{gateway}/worker", headers=headers).status_code == 401
