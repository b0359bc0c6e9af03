"""Any OpenAI-compatible endpoint: asks, waits where it is told to wait, and says in a sentence why it gave up."""

import asyncio
import datetime
import email.utils
import os
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import msgspec

from evaluation.errors import EvaluationError
from evaluation.records import Usage

if TYPE_CHECKING:
    import httpx

Message = dict[str, str]
Item = TypeVar("Item")

DEAD_TRIES = 4
"""How often an endpoint that cannot be reached is tried; one that says "later" is tried for `patience_seconds`."""
_LATER = {408, 429, 500, 502, 503, 504, 529}
_REFUSES_THIS = {400, 413, 422}


class Refused(EvaluationError):
    """The endpoint refuses this request, though perhaps not the next."""


class Unanswered(EvaluationError):
    """The connection broke off: whether the endpoint did the work nobody knows."""


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer is drawn."""

    temperature: float
    max_tokens: int
    seed: int | None = None


class Reply(msgspec.Struct, frozen=True):
    """What came back."""

    text: str
    finish_reason: str
    usage: Usage | None


class Endpoint:
    """One model behind one URL."""

    def __init__(self, url: str, model: str, key_variable: str, *, patience_seconds: float = 600) -> None:
        self.url = _base(url)
        self.model = model
        self.patience_seconds = patience_seconds
        self._key_variable = key_variable
        self._key = os.environ.get(key_variable, "")
        self._client = _client()

    @property
    def shown(self) -> str:
        """The address without what may be secret in it."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    async def find_model(self) -> None:
        """Take the one model it serves, where none was named. Raises EvaluationError where there are more, or none."""
        if self.model:
            return
        found = await self._call("GET", "/models", None)
        names = [str(each.get("id", "")) for each in found.get("data", [])]
        if len(names) != 1:
            raise EvaluationError(f"{self.shown} serves {', '.join(names) or 'no model'}; say which with --model-id.")
        self.model = names[0]

    async def ask(self, messages: list[Message], parameters: Parameters) -> Reply:
        """The reply to a conversation. Raises Refused or EvaluationError; never an empty stand-in for a failure."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": parameters.temperature,
            "max_tokens": parameters.max_tokens,
        }
        if parameters.seed is not None:
            body["seed"] = parameters.seed
        found = await self._call("POST", "/chat/completions", body)
        try:
            choice = found["choices"][0]
            text = choice["message"]["content"] or ""
            finish_reason = str(choice.get("finish_reason") or "")
        except (KeyError, IndexError, TypeError) as failure:
            raise EvaluationError(f"{self.shown} answered without a message; is it OpenAI-compatible?") from failure
        used = found.get("usage") or {}
        known = isinstance(used.get("prompt_tokens"), int) and isinstance(used.get("completion_tokens"), int)
        usage = Usage(input_tokens=used["prompt_tokens"], output_tokens=used["completion_tokens"]) if known else None
        return Reply(str(text), finish_reason, usage)

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        import httpx

        waited, dead = 0.0, 0
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        while True:
            try:
                response = await self._client.request(method, self.url + path, json=body, headers=headers)
            except httpx.TransportError as failure:
                dead += 1
                if dead >= DEAD_TRIES:
                    kind = EvaluationError if isinstance(failure, httpx.ConnectError) else Unanswered
                    raise kind(self._gave_up(f"cannot be reached ({type(failure).__name__})")) from failure
                await asyncio.sleep(0.25 * 2**dead)
                continue
            if response.status_code == 200:
                return self._decoded(response)
            if response.status_code not in _LATER:
                raise self._refusal(response)
            pause = _retry_after(response) or min(60.0, 2.0 ** min(dead, 6)) * random.uniform(0.5, 1.0)
            dead += 1
            waited += pause
            if waited > self.patience_seconds:
                raise EvaluationError(self._gave_up(f"said {response.status_code} for {self.patience_seconds:g} s"))
            await asyncio.sleep(pause)

    def _decoded(self, response: "httpx.Response") -> dict[str, Any]:
        try:
            return msgspec.json.decode(response.content, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as failure:
            raise EvaluationError(f"{self.shown} answered with something that is not JSON.") from failure

    def _refusal(self, response: "httpx.Response") -> EvaluationError:
        said = " ".join(response.text.split())[:200]
        if self._key:
            said = said.replace(self._key, "[key]")
        status = response.status_code
        if status in (401, 403):
            how = "is wrong" if self._key else "is not set"
            return EvaluationError(f"{self.shown} refuses the key ({status}); the variable {self._key_variable} {how}.")
        kind = Refused if status in _REFUSES_THIS else EvaluationError
        return kind(f"{self.shown} refuses with {status}: {said or 'no reason given'}.")

    def _gave_up(self, why: str) -> str:
        return f"{self.shown} {why}. Everything so far is kept; run the command again to go on."


async def concurrently(items: Iterable[Item], do: Callable[[Item], Awaitable[None]], at_once: int) -> None:
    """Do `do` with every item, so many at once. After a failure nothing new begins, what is under way is finished
    (it may be paid for), and then the failure is raised."""
    waiting = iter(items)
    failures: list[EvaluationError] = []

    async def worker() -> None:
        for item in waiting:
            if failures:
                return
            try:
                await do(item)
            except EvaluationError as failure:
                failures.append(failure)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    if failures:
        raise failures[0]


def _client() -> "httpx.AsyncClient":
    try:
        import httpx
    except ImportError as failure:
        raise EvaluationError("Asking a model needs httpx; install it with: pip install 'vlaunch[judge]'") from failure
    return httpx.AsyncClient(timeout=httpx.Timeout(600.0, connect=10.0))


def _base(url: str) -> str:
    """With /v1 where the address names no path."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise EvaluationError("An endpoint's address begins with http:// or https:// and names a host.")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or "/v1", "", ""))


def _retry_after(response: "httpx.Response") -> float | None:
    """Seconds from the header, which holds seconds or a date."""
    value = response.headers.get("retry-after", "")
    try:
        return max(0.05, float(value))
    except ValueError:
        pass
    try:
        until = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.05, (until - datetime.datetime.now(datetime.UTC)).total_seconds())
