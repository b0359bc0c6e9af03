"""How serving fails: sentences for a person, and OpenAI's error form for a client. Knows no HTTP library."""

from typing import Any

import msgspec


class ServingError(Exception):
    """Serving cannot start or go on; the text is one sentence for a person."""


class EngineFailed(Exception):
    """A worker's engine did not answer as it should; somebody else's may."""


class ApiError(Exception):
    """What a client is told, in OpenAI's form.

    `code` is what a program tells failures apart by; every one is in docs/serving.md.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def kind(self) -> str:
        """OpenAI's coarse `type`."""
        if self.status == 401:
            return "authentication_error"
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def body(self) -> bytes:
        """The JSON document of an error."""
        error: dict[str, Any] = {"message": self.message, "type": self.kind, "param": None, "code": self.code}
        return msgspec.json.encode({"error": error})

    def event(self) -> bytes:
        """The same as an event in a stream that has begun."""
        return b"data: " + self.body() + b"\n\n"


def bad_request(message: str) -> ApiError:
    return ApiError(400, "invalid_request", message)


def no_such_model(model: str) -> ApiError:
    return ApiError(404, "model_not_found", f"There is no model '{model}' here; GET /v1/models lists them.")


def no_worker_ready(model: str) -> ApiError:
    return ApiError(503, "no_worker_ready", f"No worker of '{model}' is ready; one may be on its way.", retry_after=5.0)


def overloaded(model: str, seconds: float) -> ApiError:
    return ApiError(503, "overloaded", f"All workers of '{model}' are busy; try again shortly.", retry_after=seconds)


def worker_lost(why: str) -> ApiError:
    return ApiError(502, "worker_lost", why)
