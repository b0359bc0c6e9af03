"""Asks a local service questions while its replicas are taken away and replaced, and shows whether every answer came
whole. For a demonstration: any OpenAI client does the same.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from launcher.serve_local import LocalService

MAX_TOKENS = 48
_PATIENCE_SECONDS = 240.0
_WAIT_SECONDS = 0.5


class NoneReady(Exception):
    """Nobody could take the question; it can be asked again."""


def ask_while_it_lasts(service: LocalService, questions: Sequence[str], say: Callable[[str], None]) -> None:
    """Begin asking in a thread: each question in turn, until the market has taken what it takes. Then the service is
    stopped."""
    threading.Thread(target=_ask_all, args=(service, questions, say), daemon=True).start()


def _ask_all(service: LocalService, questions: Sequence[str], say: Callable[[str], None]) -> None:
    over = time.monotonic() + _PATIENCE_SECONDS
    models = list(service.wanted)
    while not any(replica.ready for replica in list(service.replicas)) and time.monotonic() < over:
        time.sleep(_WAIT_SECONDS)
    asked = whole = broken = again = 0
    while time.monotonic() < over and not (service.market_is_done and asked >= len(questions)):
        question, model = questions[asked % len(questions)], models[asked % len(models)]
        began = time.monotonic()
        try:
            answer = "".join(_stream(service.port, model, question))
        except NoneReady:
            again += 1
            time.sleep(_WAIT_SECONDS)
            continue
        except (OSError, http.client.HTTPException, ValueError) as failure:
            broken += 1
            say(f"? {question}\n  no whole answer: {failure}")
        else:
            whole += 1
            say(f"? {question}\n  {' '.join(answer.split())}  [{time.monotonic() - began:.1f} s]")
        asked += 1
    say(
        f"{whole} answers came whole and {broken} did not, while {service.preemptions} replicas were taken away; "
        f"{again} times none was ready and the question was asked again"
    )
    service.stop()


def _stream(port: int, model: str, question: str) -> Iterator[str]:
    """The answer in pieces. Raises NoneReady, or ValueError where it failed or stopped short."""
    body = {
        "model": model, "messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": MAX_TOKENS,
        "temperature": 0,
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status in (404, 503):  # not registered yet, none ready, overloaded
            raise NoneReady
        if answer.status != 200:
            raise ValueError(json.loads(answer.read())["error"]["message"])
        for line in answer:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                return
            event = json.loads(line.removeprefix(b"data: "))
            if "error" in event:
                raise ValueError(event["error"]["message"])
            yield from (choice["delta"].get("content") or "" for choice in event["choices"])
    finally:
        connection.close()
    raise ValueError("the stream ended without its end")
