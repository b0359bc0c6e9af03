"""Moderation in front of every model: a request is looked at before any worker sees it. Which moderators there are, for
which models, and what holds while one is down, is the gateway's configuration.

Every text of a request is looked at, whoever it says is speaking: a client can write an assistant's turn as well.
"""

import asyncio
import logging
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import msgspec

from serving.asked import Asked
from serving.config import ApiKey, ModerationRule
from serving.errors import ApiError, ServingError
from serving.keys import allows

log = logging.getLogger("serving.moderation")


class Verdict(msgspec.Struct, frozen=True):
    """What a moderator thinks of a text."""

    flagged: bool
    categories: tuple[str, ...] = ()
    """For what, in the moderator's words."""


class ModeratorDown(Exception):
    """It gave no verdict; the text says why."""


class Moderator(Protocol):
    async def check(self, text: str) -> Verdict:
        """Look at a text. Raises ModeratorDown."""


class WordList:
    """Flags words and phrases, one a line, whatever their case and however their letters are composed."""

    def __init__(self, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as failure:
            raise ServingError(f"The word list {path} cannot be read: {failure}.") from failure
        words = sorted({plain(line) for line in lines if line.strip() and not line.startswith("#")})
        if not words:
            raise ServingError(f"The word list {path} has no word in it.")
        self._found = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)")

    async def check(self, text: str) -> Verdict:
        return Verdict(True, ("words",)) if self._found.search(plain(text)) else Verdict(False)


class Endpoint:
    """Asks a server: OpenAI's moderation endpoint or one of its form (`openai`), or a text classifier that gives
    labels and scores, as text-embeddings-inference does (`classifier`)."""

    def __init__(self, rule: ModerationRule) -> None:
        self._rule = rule
        self._session: aiohttp.ClientSession | None = None

    async def check(self, text: str) -> Verdict:
        rule = self._rule
        body = {"model": rule.model, "input": text} if rule.kind == "openai" else {"inputs": text}
        key = os.environ.get(rule.key_variable, "") if rule.key_variable else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with self._open().post(rule.url, json=body, headers=headers) as answer:
                document = await answer.read()
                if answer.status != 200:
                    raise ModeratorDown(f"it answers with status {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as failure:
            raise ModeratorDown(str(failure) or type(failure).__name__) from failure
        try:
            return openai_verdict(document) if rule.kind == "openai" else classifier_verdict(document, rule)
        except msgspec.DecodeError as failure:
            raise ModeratorDown(f"it answers something else than a verdict: {failure}") from failure

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._rule.timeout_seconds)
            self._session = aiohttp.ClientSession(timeout=timeout)
        return self._session


class _Result(msgspec.Struct):
    flagged: bool
    categories: dict[str, bool | None] = {}


class _Results(msgspec.Struct):
    results: list[_Result]


class _Label(msgspec.Struct):
    label: str
    score: float


def openai_verdict(document: bytes) -> Verdict:
    """Of OpenAI's form. Raises msgspec.DecodeError."""
    results = msgspec.json.decode(document, type=_Results).results
    if not results:
        raise msgspec.ValidationError("no results")
    categories = {name for result in results for name, holds in result.categories.items() if holds}
    return Verdict(any(result.flagged for result in results), tuple(sorted(categories)))


def classifier_verdict(document: bytes, rule: ModerationRule) -> Verdict:
    """Of labels and scores, in one list or a list of lists. Raises msgspec.DecodeError."""
    found: list[Any] = msgspec.json.decode(document, type=list[Any])
    if not found:
        raise msgspec.ValidationError("no labels")
    labels = msgspec.convert(found[0] if isinstance(found[0], list) else found, type=list[_Label])
    over = tuple(sorted(x.label for x in labels if x.label in rule.labels and x.score >= rule.threshold))
    return Verdict(bool(over), over)


class Moderation:
    """The moderators of a gateway; `guard` is one of its guards."""

    def __init__(self, rules: Sequence[ModerationRule]) -> None:
        self.rules = [(rule, moderator(rule)) for rule in rules]

    async def guard(self, asked: Asked, key: ApiKey) -> None:
        """Refuse what a moderator of the model flags, and, where it is to be so, what none could look at."""
        rules = [(rule, by) for rule, by in self.rules if allows(rule.models, asked.model)]
        if not rules:
            return
        text = "\n".join(texts(msgspec.json.decode(asked.raw)))
        await asyncio.gather(*(self._look(rule, by, text, asked, key) for rule, by in rules))

    async def close(self) -> None:
        for _, by in self.rules:
            if isinstance(by, Endpoint):
                await by.close()

    async def _look(self, rule: ModerationRule, by: Moderator, text: str, asked: Asked, key: ApiKey) -> None:
        about = {"model": asked.model, "key": key.name, "moderator": rule.name}
        try:
            verdict = await by.check(text)
        except ModeratorDown as failure:
            log.error("moderator down", extra={**about, "reason": str(failure), "then": rule.when_down})
            if rule.when_down == "closed":
                raise ApiError(
                    503, "moderation_down", f"Nothing goes to '{asked.model}' while its moderation does not answer.",
                    retry_after=5.0,
                ) from failure  # fmt: skip
            return
        if verdict.flagged:
            log.warning("request flagged", extra={**about, "categories": list(verdict.categories)})
            what = f" for {', '.join(verdict.categories)}" if verdict.categories else ""
            raise ApiError(400, "moderated", f"This was flagged{what}, so it was not sent to '{asked.model}'.")


def moderator(rule: ModerationRule) -> Moderator:
    """The moderator a rule names. Raises ServingError."""
    return WordList(Path(rule.words)) if rule.kind == "words" else Endpoint(rule)


def texts(body: Any) -> Iterator[str]:
    """Every text a model would see of a request's body: messages in all their forms, prompts, inputs."""
    for name in ("messages", "prompt", "input", "suffix"):
        yield from _strings(body.get(name))


def _strings(found: Any) -> Iterator[str]:
    if isinstance(found, str):
        yield found
    elif isinstance(found, list):
        for each in found:
            yield from _strings(each)
    elif isinstance(found, dict):
        for name, each in found.items():
            if name not in ("role", "type", "image_url", "input_audio"):
                yield from _strings(each)


def plain(text: str) -> str:
    """Compatibility letters and case folded, invisible characters left out, any run of space one space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(letter for letter in folded if unicodedata.category(letter) != "Cf").split())
