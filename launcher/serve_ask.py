"""Asks a local service questions while its replicas are taken away and replaced, and counts whether every answer came
whole. For a demonstration: any OpenAI client does the same.
"""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from launcher.errors import RunError
from launcher.local_gateway import measured
from launcher.serve_local import LocalService

MAX_TOKENS = 48
ASKERS = 2
"""At once, so that every replica has an answer under way when it is taken."""
_PATIENCE_SECONDS = 210.0
_ANSWER_SECONDS = 60.0
_WAIT_SECONDS = 0.5


class NoneReady(Exception):
    """Nobody could take the question; it can be asked again."""


class Asking:
    """Questions in turn, until the market has taken what it takes; then the service is stopped."""

    def __init__(self, service: LocalService, questions: Sequence[str], say: Callable[[str], None]) -> None:
        self.service = service
        self.questions = questions
        self.say = say
        self.whole = self.broken = self.again = 0
        self._turns = itertools.count()
        self._over = time.monotonic() + _PATIENCE_SECONDS
        self._counting = threading.Lock()

    def begin(self) -> None:
        askers = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(ASKERS)]
        threading.Thread(target=self._finish, args=(askers,), daemon=True).start()

    def check(self) -> None:
        """Raises RunError where an answer was lost, or none came."""
        if self.broken or not self.whole:
            raise RunError(f"{self.broken} answers did not come whole, and {self.whole} did.")

    def _finish(self, askers: list[threading.Thread]) -> None:
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        moved = measured(self.service.port, "vlaunch_failovers_total").total()
        self.say(
            f"{self.whole} answers came whole and {self.broken} did not, while {self.service.preemptions} replicas "
            f"were taken away; {moved} went on at another replica in the middle; "
            f"{self.again} times none was ready and the question was asked again"
        )
        self.service.stop()

    def _ask_on(self) -> None:
        while not self.service.stopping and not any(replica.ready for replica in list(self.service.replicas)):
            time.sleep(_WAIT_SECONDS)
        models = list(self.service.wanted)
        turn = next(self._turns)
        while not self.service.stopping and time.monotonic() < self._over:
            if self.service.market_is_done and self.whole + self.broken >= len(self.questions):
                return
            question = self.questions[turn % len(self.questions)]
            if self._ask(models[turn % len(models)], question):
                turn = next(self._turns)
            else:
                time.sleep(_WAIT_SECONDS)

    def _ask(self, model: str, question: str) -> bool:
        """Whether somebody took it."""
        began = time.monotonic()
        try:
            answer = "".join(_stream(self.service.port, model, question))
        except NoneReady:
            with self._counting:
                self.again += 1
            return False
        except (OSError, http.client.HTTPException, ValueError) as failure:
            if self.service.stopping:  # by a person, in the middle of the answer
                return True
            with self._counting:
                self.broken += 1
            self.say(f"? {question}\n  no whole answer: {failure}")
            return True
        with self._counting:
            self.whole += 1
        self.say(f"? {question}\n  {' '.join(answer.split())}  [{time.monotonic() - began:.1f} s]")
        return True


def _stream(port: int, model: str, question: str) -> Iterator[str]:
    """The answer in pieces. Raises NoneReady, or ValueError where it failed or stopped short."""
    body = {
        "model": model, "messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": MAX_TOKENS,
        "temperature": 0,
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
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
