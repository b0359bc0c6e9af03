"""Who asked what of which model and what came of it: one JSON line a request, without contents unless asked."""

import datetime
import time
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from serving.config import GatewayConfig
from serving.errors import ServingError

if TYPE_CHECKING:
    from serving.exchange import Exchange


class Audit:
    """Appends to the audit file, where there is one."""

    def __init__(self, config: GatewayConfig) -> None:
        self.contents = config.audit_contents
        self.file: BinaryIO | None = None
        if config.audit_file:
            try:
                self.file = open(config.audit_file, "ab", buffering=0)  # noqa: SIM115 (open as long as the gateway)
            except OSError as failure:
                raise ServingError(
                    f"The audit file {config.audit_file} cannot be written: {failure.strerror}."
                ) from failure

    def write(self, exchange: "Exchange", code: str) -> None:
        if self.file is None:
            return
        answer, began = exchange.answer, exchange.began
        first = exchange.first_token_at
        line: dict[str, Any] = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "request": answer.answer_id,
            "key": exchange.key.name,
            "tenant": exchange.key.tenant,
            "endpoint": exchange.asked.endpoint,
            "model": answer.model,
            "code": code,
            "workers": exchange.workers,
            "failovers": exchange.failovers,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.tokens,
            "first_token_seconds": None if first is None else round(first - began, 4),
            "seconds": round(time.monotonic() - began, 4),
        }
        if self.contents:
            line["asked"] = exchange.asked.raw.decode(errors="replace")
            line["answered"] = answer.text()
        self.file.write(msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
