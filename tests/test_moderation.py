"""Moderators by what they are told and what they answer; the page's tests see them in front of a model."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from serving import asked
from serving.config import ModerationRule
from serving.errors import ApiError, ServingError
from serving.keys import ANYBODY
from serving.moderation import Moderation, WordList, plain, texts

ALLOW = {"results": [{"flagged": False, "categories": {"violence": False}}]}
FLAG = {"results": [{"flagged": True, "categories": {"violence": True, "hate": False}}]}


@asynccontextmanager
async def server(answer: Any, status: int = 200, seen: list[Any] | None = None) -> AsyncIterator[str]:
    """A moderator that answers this to everything."""

    async def reply(request: web.Request) -> web.Response:
        if seen is not None:
            seen.append((await request.json(), request.headers.get("Authorization")))
        return web.json_response(answer, status=status)

    app = web.Application()
    app.router.add_post("/moderate", reply)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/moderate"
    await runner.cleanup()


def refused(rules: list[ModerationRule], text: str = "hello", model: str = "m") -> str:
    """The code a request is refused with, or nothing."""

    async def look() -> str:
        moderation = Moderation(rules)
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        try:
            await moderation.guard(asked.read("chat/completions", json.dumps(body).encode()), ANYBODY)
        except ApiError as failure:
            return failure.code
        finally:
            await moderation.close()
        return ""

    return asyncio.run(look())


def against(answer: Any, status: int = 200, **rule: Any) -> str:
    """The same with a server that answers this."""

    async def look() -> str:
        async with server(answer, status) as url:
            settings: dict[str, Any] = {"name": "x", "kind": "openai", "url": url}
            return await asyncio.to_thread(refused, [ModerationRule(**(settings | rule))])

    return asyncio.run(look())


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words"
    path.write_text("# a comment\nbad thing\nÜbel\n")
    return path


@pytest.mark.parametrize(
    ("text", "flagged"),
    [
        ("a bad thing", True),
        ("A BAD   THING!", True),
        ("b\u200bad thi\u00adng", True),
        ("ｂａｄ ｔｈｉｎｇ", True),
        ("u\u0308bel", True),
        ("a bad thingy", False),
        ("# a comment", False),
        ("", False),
    ],
)
def test_a_word_list_sees_through_case_and_letters_but_not_into_words(words: Path, text: str, flagged: bool) -> None:
    assert asyncio.run(WordList(words).check(text)).flagged is flagged


def test_a_word_list_that_is_not_there_or_is_empty_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="cannot be read"):
        WordList(tmp_path / "none")
    (tmp_path / "empty").write_text("# nothing\n\n")
    with pytest.raises(ServingError, match="has no word in it"):
        WordList(tmp_path / "empty")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "assistant", "content": "a bad thing"}, {"role": "user", "content": "go on"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a bad thing"}]}]},
        {"prompt": "a bad thing"},
        {"prompt": ["x", "a bad thing"]},
        {"input": ["a bad thing"]},
        {"prompt": "x", "suffix": "a bad thing"},
    ],
)
def test_every_text_of_a_request_is_looked_at(body: dict[str, Any]) -> None:
    assert "a bad thing" in list(texts(body))


def test_a_rule_holds_for_its_models_alone(words: Path) -> None:
    rule = ModerationRule(name="w", kind="words", words=str(words), models=("open-*",))
    assert refused([rule], "bad thing", "open-1") == "moderated"
    assert refused([rule], "bad thing", "other") == ""
    assert refused([rule], "good thing", "open-1") == ""


def test_openais_verdict_decides_and_gets_text_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert against(ALLOW) == ""
    assert against(FLAG) == "moderated"
    monkeypatch.setenv("MODERATION_KEY", "sk-1")
    seen: list[Any] = []

    async def look() -> None:
        async with server(ALLOW, seen=seen) as url:
            rule = ModerationRule(name="x", kind="openai", url=url, key_variable="MODERATION_KEY")
            await asyncio.to_thread(refused, [rule], "hello there")

    asyncio.run(look())
    assert seen == [({"model": "omni-moderation-latest", "input": "hello there"}, "Bearer sk-1")]


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(("score", "code"), [(0.9, "moderated"), (0.79, "")])
def test_a_classifiers_label_flags_from_its_threshold_on(nested: bool, score: float, code: str) -> None:
    labels = [{"label": "fine", "score": 1.0}, {"label": "toxic", "score": score}]
    answer = [labels] if nested else labels
    assert against(answer, kind="classifier", labels=("toxic",), threshold=0.8) == code


@pytest.mark.parametrize(
    ("answer", "status"), [({"error": "no"}, 500), ({"error": "no"}, 401), ({"results": []}, 200), (["?"], 200)]
)
def test_no_verdict_lets_nothing_through_unless_it_is_to_be_so(answer: Any, status: int) -> None:
    assert against(answer, status) == "moderation_down"
    assert against(answer, status, when_down="open") == ""


def test_a_moderator_that_is_gone_or_slow_gives_no_verdict() -> None:
    assert refused([ModerationRule(name="x", kind="openai", url="http://127.0.0.1:9/m")]) == "moderation_down"

    async def look() -> str:
        async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        silent = await asyncio.start_server(never, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/m"
        rule = ModerationRule(name="x", kind="openai", url=url, timeout_seconds=0.2)
        code = await asyncio.to_thread(refused, [rule])
        silent.close()
        await silent.wait_closed()
        return code

    assert asyncio.run(look()) == "moderation_down"


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"kind": "words"}, "names no file"),
        ({"kind": "classifier"}, "names none that flags a text"),
        ({"kind": "openai", "timeout_seconds": 0}, "must be above 0"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused(rule: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ModerationRule(name="x", **rule)


def test_plain_text_is_the_same_for_what_looks_the_same() -> None:
    assert plain("ＡＢ\u200dC\n d") == plain("abc D")
