"""The chat page on a gateway: its files, and what it writes down: votes, and conversations whose person agreed.

It asks models by the gateway's own API like any client, so moderation and failover hold for it too.
"""

import asyncio
import contextlib
import datetime
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from aiohttp import web

from serving.errors import ApiError, ServingError, bad_request
from serving.gateway import Gateway

log = logging.getLogger("serving.page")

FILES = {"": "index.html", "page.css": "page.css", "page.js": "page.js"}
"""Path on the gateway to file of the page."""
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    # Only what came from this gateway runs, and it talks to this gateway alone.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_ROLES = {"user": "human", "assistant": "gpt", "system": "system"}


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One turn, as the page has it."""

    role: Literal["user", "assistant", "system"]
    content: str


class Conversation(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /page/conversations` takes."""

    id: str
    model: str
    consent: bool
    messages: list[Message]


class Vote(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /page/votes` takes. The texts come only from a person who agreed to have them saved."""

    id: str
    winner: Literal["a", "b", "tie", "bad"]
    models: tuple[str, str]
    conversations: list[list[Message]]


Said = TypeVar("Said", Vote, Conversation)


class Page:
    """The page on one gateway; `folder` is where things are written down, None for nowhere."""

    def __init__(self, gateway: Gateway, folder: Path | None) -> None:
        self.gateway = gateway
        self.folder = folder
        self._writing = asyncio.Lock()
        if folder is not None:
            try:
                (folder / "conversations").mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as failure:
                raise ServingError(f"The page cannot write into {folder}: {failure.strerror}.") from failure
        router = gateway.app.router
        for path, name in FILES.items():
            router.add_get(f"/{path}", _file(Path(__file__).parent / "page_files" / name))
        router.add_get("/page/about", self._about)
        router.add_post("/page/votes", self._vote)
        router.add_post("/page/conversations", self._save)

    async def _about(self, request: web.Request) -> web.Response:
        return web.json_response({"saves": self.folder is not None})

    async def _vote(self, request: web.Request) -> web.Response:
        """One line a vote in votes.jsonl; names alone go to the log of a gateway that keeps nothing."""
        key = self.gateway.key_of(request)
        vote = await _read(request, Vote)
        log.info("vote", extra={"winner": vote.winner, "models": list(vote.models), "key": key.name})
        if self.folder is not None:
            line = {
                "id": vote.id, "at": _now(), "key": key.name, "winner": vote.winner, "models": vote.models,
                "conversations": [_turns(messages) for messages in vote.conversations],
            }  # fmt: skip
            async with self._writing:
                await asyncio.to_thread(_append, self.folder / "votes.jsonl", msgspec.json.encode(line) + b"\n")
        return web.json_response({"saved": self.folder is not None})

    async def _save(self, request: web.Request) -> web.Response:
        """One file a conversation, one line in it, in the form that training reads; the longer replaces the shorter."""
        key = self.gateway.key_of(request)
        said = await _read(request, Conversation)
        if self.folder is None:
            raise ApiError(404, "nothing_is_saved", "This gateway saves no conversations.")
        if not said.consent:
            raise bad_request("A conversation is saved only with consent.")
        line = {"id": said.id, "at": _now(), "key": key.name, "model": said.model,
                "conversations": _turns(said.messages)}  # fmt: skip
        path = self.folder / "conversations" / f"{said.id}.jsonl"
        async with self._writing:
            await asyncio.to_thread(_replace, path, msgspec.json.encode(line) + b"\n")
        return web.json_response({"saved": True})


def _file(path: Path) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def give(request: web.Request) -> web.Response:
        return web.Response(body=path.read_bytes(), headers=_HEADERS, content_type=_TYPES[path.suffix], charset="utf-8")

    return give


async def _read(request: web.Request, kind: type[Said]) -> Said:
    """The body as `kind`. Raises ApiError 400 where it is not one."""
    try:
        body = msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as failure:
        raise bad_request(f"The body is not what the page sends: {failure}") from None
    if not (8 <= len(body.id) <= 64 and all(letter in "0123456789abcdef-" for letter in body.id)):
        raise bad_request("'id' must be 8 to 64 hexadecimal digits.")  # it becomes the name of a file
    return body


def _turns(messages: list[Message]) -> list[dict[str, str]]:
    return [{"from": _ROLES[message.role], "value": message.content} for message in messages]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _append(path: Path, line: bytes) -> None:
    with _writable(path), open(path, "ab", opener=_private) as file:
        file.write(line)


def _replace(path: Path, line: bytes) -> None:
    partial = path.with_suffix(".partial")
    with _writable(path):
        with open(partial, "wb", opener=_private) as file:
            file.write(line)
        partial.replace(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """A disk that is full or may not be written is the gateway's trouble, said to the person and in the log."""
    try:
        yield
    except OSError as failure:
        log.error("not saved", extra={"path": str(path), "reason": failure.strerror})
        raise ApiError(507, "not_saved", f"The gateway could not write it down: {failure.strerror}.") from failure
