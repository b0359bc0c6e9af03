"""The gateway as a client sees it: OpenAI's own package, and raw requests for what that package hides."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from pydantic import SecretStr

from tests.serving_parts import Parts, parts, wait_for_workers


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with parts(tmp_path_factory.mktemp("serving")) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(serving: Parts) -> str:
    address = serving.gateway()
    serving.worker("worker", (address,), serving.engine("engine"), models=("dummy", "other=dummy"))
    wait_for_workers(address, 1)
    return address


@pytest.fixture
def client(gateway: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def test_the_official_client_gets_an_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="dummy", messages=[{"role": "user", "content": "one two"}], max_tokens=3
    )
    assert answer.choices[0].message.content == " t0 t1 t2"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 3)


def test_the_official_client_gets_a_stream_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="other",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=4,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content] == [
        " t0",
        " t1",
        " t2",
        " t3",
    ]
    assert {c.id for c in chunks} == {chunks[0].id}
    assert {c.model for c in chunks} == {"other"}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4


def test_plain_completions_and_embeddings(client: openai.OpenAI) -> None:
    assert client.completions.create(model="dummy", prompt="go", max_tokens=2).choices[0].text == " t0 t1"
    pieces = client.completions.create(model="dummy", prompt="go", max_tokens=2, stream=True)
    assert "".join(chunk.choices[0].text for chunk in pieces) == " t0 t1"
    vectors = client.embeddings.create(model="dummy", input="go", encoding_format="float")
    assert vectors.data[0].embedding == [0.25, -0.5]


def test_models_are_those_of_connected_workers(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["dummy", "other"]
    assert client.models.retrieve("other").id == "other"


def test_more_than_one_choice_is_passed_on_from_the_engine(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="dummy", messages=[{"role": "user", "content": "x"}], max_tokens=2, n=3
    )
    assert [choice.message.content for choice in answer.choices] == [" t0 t1"] * 3


def test_langchains_client_works_unchanged(gateway: str) -> None:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(
        model="dummy", base_url=f"{gateway}/v1", api_key=SecretStr("none"), max_completion_tokens=3, stream_usage=True
    )
    assert model.invoke("hello").content == " t0 t1 t2"
    pieces = list(model.stream("hello"))
    assert "".join(str(piece.content) for piece in pieces) == " t0 t1 t2"
    usage = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert [(each["input_tokens"], each["output_tokens"]) for each in usage] == [(1, 3)]


def test_an_unknown_model_is_its_own_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as failure:
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
    assert failure.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"model": "dummy"}', 400),
        (b'{"model": "dummy", "messages": []}', 400),
        (b'{"model": "dummy", "messages": [{"role": "user"}], "max_tokens": 0}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b" " * 9_000_000, 413),
    ],
    ids=["empty", "list", "no messages", "empty messages", "no tokens", "not text", "deep", "large"],
)
def test_a_bad_body_is_refused_in_openais_form(gateway: str, body: bytes, status: int) -> None:
    response = httpx.post(f"{gateway}/v1/chat/completions", content=body)
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_an_address_that_is_not_there_is_an_error_in_openais_form(gateway: str) -> None:
    assert httpx.get(f"{gateway}/v1/nothing").json()["error"]["code"] == "not_found"
    response = httpx.get(f"{gateway}/v1/chat/completions")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


def test_metrics_tell_of_models_and_keys(gateway: str, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="dummy", messages=[{"role": "user", "content": "x"}], max_tokens=2)
    text = httpx.get(f"{gateway}/metrics").text
    assert 'vlaunch_requests_total{code="ok",key="anonymous",model="dummy"}' in text
    assert 'vlaunch_workers{model="dummy"} 1.0' in text


def test_a_worker_whose_engine_is_gone_is_no_worker(tmp_path: Path) -> None:
    with parts(tmp_path) as serving:
        address = serving.gateway(no_worker_seconds=0.2)
        serving.worker("worker", (address,), serving.engine("engine"))
        wait_for_workers(address, 1)
        serving.kill("engine")
        wait_for_workers(address, 0)
        body = {"model": "dummy", "messages": [{"role": "user", "content": "x"}]}
        response = httpx.post(f"{address}/v1/chat/completions", json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "no_worker_ready")
        assert int(response.headers["Retry-After"]) > 0
