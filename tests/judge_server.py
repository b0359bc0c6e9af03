"""An OpenAI-shaped endpoint for tests, with a judge or a model of the test's own behind it."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec


class Said(msgspec.Struct):
    """What the endpoint answers: a message, or another status with its headers."""

    text: str = ""
    status: int = 200
    finish_reason: str = "stop"
    headers: dict[str, str] = {}
    usage: bool = True
    seconds: float = 0.0


class Endpoint:
    """Counts what it is asked; `answer(request, times)` says what to do with a request it sees the n-th time."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Said]) -> None:
        self.answer = answer
        self.seen: Counter[str] = Counter()
        self.answered: list[tuple[str, int, int]] = []
        """The conversation and its tokens in and out, of every reply with a message."""
        self.models = ["the-model"]
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reply(self, request: dict[str, Any]) -> tuple[Said, dict[str, Any]]:
        key = json.dumps(request["messages"])
        with self.lock:
            self.seen[key] += 1
            times = self.seen[key]
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        said = self.answer(request, times)
        time.sleep(said.seconds)
        tokens = (len(key) // 4, len(said.text) // 4 + 1)
        with self.lock:
            self.at_once -= 1
            if said.status == 200:
                self.answered.append((key, *tokens))
        if said.status != 200:
            return said, {"error": {"message": said.text}}
        choice = {"message": {"role": "assistant", "content": said.text}, "finish_reason": said.finish_reason}
        body: dict[str, Any] = {"choices": [choice]}
        if said.usage:
            body["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
        return said, body

    port = 0


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Said]) -> Iterator[Endpoint]:
    """The endpoint on a free port of 127.0.0.1, gone afterwards."""
    endpoint = Endpoint(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {}, {"data": [{"id": name} for name in endpoint.models]})

        def do_POST(self) -> None:
            size = int(self.headers["content-length"])
            content = self.rfile.read(size)
            if len(content) < size:
                return  # the asker was killed while it asked
            said, body = endpoint.reply(json.loads(content))
            self._send(said.status, said.headers, body)

        def _send(self, status: int, headers: dict[str, str], body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            try:
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the asker was killed

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
