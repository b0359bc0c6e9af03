"""Logs as JSON lines on standard error: time, level, what happened, and its particulars."""

import datetime
import logging
import sys

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in USUAL},
        }
        failure = record.exc_info[1] if record.exc_info else None
        if isinstance(failure, HttpProcessingError | web.RequestPayloadError):
            # What a client sent was no HTTP: aiohttp says that with a traceback, and anybody could fill the log so.
            line |= {"level": "warning", "event": "bad request", "reason": str(failure)[:200]}
        elif record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def to_standard_error(level: int = logging.INFO) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
