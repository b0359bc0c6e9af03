"""Who may plug in and who may ask: tokens, tenants, keys and their limits, against a running gateway."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from serving import wire
from serving.config import WorkerToken, hashed
from tests.serving_parts import Parts, key, parts, wait_for_log_line

KEYS = (
    key("anna", "anna-key", tenant="a"),
    key("bert", "bert-key", tenant="b"),
    key("slow", "slow-key", tenant="a", requests_per_minute=2),
    key("frugal", "frugal-key", tenant="a", tokens_per_minute=5),
    key("narrow", "narrow-key", tenant="a", models=("other-*",)),
)
TOKENS = (
    WorkerToken(name="of-a", sha256=hashed("token-a"), tenant="a", models=("dummy",)),
    WorkerToken(name="of-b", sha256=hashed("token-b"), tenant="b", models=("*",)),
)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with parts(tmp_path_factory.mktemp("registration")) as made:
        yield made


@pytest.fixture(scope="module")
def engine(serving: Parts) -> str:
    return serving.engine("engine")


@pytest.fixture(scope="module")
def gateway(serving: Parts, engine: str) -> str:
    address = serving.gateway(keys=KEYS, worker_tokens=TOKENS, audit_file=str(serving.folder / "audit"))
    serving.worker("worker", (address,), engine, token="token-a")
    serving.wait_for_log("worker", '"connected"')
    serving.wait_for_log("worker", '"engine is well"')
    return address


def ask(gateway: str, secret: str, **more: object) -> httpx.Response:
    body = {"model": "dummy", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3, **more}
    return httpx.post(f"{gateway}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"})


@pytest.mark.parametrize(
    ("token", "models", "said"),
    [
        ("", ("dummy",), "without a token"),
        ("wrong", ("dummy",), "with a wrong token"),
        ("bert-key", ("dummy",), "with the API key 'bert'"),
        ("token-a", ("another",), "does not cover the model 'another'"),
        ("token-b", ("dummy",), "the model 'dummy' is another tenant's"),
    ],
    ids=["no token", "wrong token", "an API key of another tenant", "a model beyond the token", "another's model"],
)
def test_a_registration_that_may_not_be_is_refused_and_logged(
    serving: Parts, gateway: str, engine: str, token: str, models: tuple[str, ...], said: str
) -> None:
    serving.worker("intruder", (gateway,), engine, token=token, models=models)
    assert serving.processes["intruder"].wait(60) == 1
    assert "refused this worker" in serving.log("intruder")
    assert "Traceback" not in serving.log("intruder")
    wait_for_log_line(serving, "gateway", "registration refused", said)
    assert ask(gateway, "anna-key").status_code == 200


def test_what_is_not_a_hello_is_turned_away(gateway: str) -> None:
    async def shout(data: bytes) -> int | None:
        headers = {"Authorization": "Bearer token-a"}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(gateway + wire.PATH, headers=headers) as socket,
        ):
            await socket.send_bytes(data)
            return (await socket.receive()).data

    for data in (b"\xc1 nonsense", wire.encode([]), wire.encode([wire.Leaving("x")])):
        assert asyncio.run(shout(data)) == wire.REFUSED


def test_another_tenants_model_is_not_there(gateway: str) -> None:
    assert ask(gateway, "anna-key").status_code == 200
    for secret in ("bert-key", "narrow-key"):
        refused = ask(gateway, secret)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.get(f"{gateway}/v1/models", headers=headers).json()["data"] == []


@pytest.mark.parametrize("secret", ["", "wrong", "token-a", "é" * 3], ids=["none", "wrong", "a token", "not ASCII"])
def test_without_a_key_nobody_asks(gateway: str, secret: str) -> None:
    headers = {b"Authorization": b"Bearer " + secret.encode()} if secret else {}
    for response in (
        httpx.post(f"{gateway}/v1/chat/completions", json={}, headers=headers),
        httpx.get(f"{gateway}/v1/models", headers=headers),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("secret", ["slow-key", "frugal-key"], ids=["requests", "tokens"])
def test_a_key_has_only_so_much_a_minute(gateway: str, secret: str) -> None:
    answers = [ask(gateway, secret) for _ in range(4)]
    assert answers[0].status_code == 200
    assert answers[-1].status_code == 429
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert int(answers[-1].headers["Retry-After"]) > 1


def test_the_audit_log_says_who_and_what_but_not_the_contents(serving: Parts, gateway: str) -> None:
    ask(gateway, "anna-key", messages=[{"role": "user", "content": "my secret"}])
    text = (serving.folder / "audit").read_text()
    assert '"key":"anna"' in text
    assert '"completion_tokens":3' in text
    assert "my secret" not in text
    assert "anna-key" not in text + serving.log("gateway")


def test_no_token_and_no_key_stands_in_the_list_of_processes(serving: Parts, gateway: str) -> None:
    for process in serving.processes.values():
        command = Path(f"/proc/{process.pid}/cmdline")
        assert not command.exists() or b"token-a" not in command.read_bytes()
