"""Who may ask and who may plug in: hashed keys and tokens, and how much each key may use. Knows no network."""

import fnmatch
import hmac
from collections.abc import Callable, Sequence
from typing import TypeVar

from serving.config import ApiKey, WorkerToken, hashed
from serving.errors import ApiError

Entry = TypeVar("Entry", ApiKey, WorkerToken)

ANYBODY = ApiKey(name="anonymous", sha256="0" * 64)


def find(entries: Sequence[Entry], key: str) -> Entry | None:
    """The entry of `key`. Every entry is compared, in constant time, so timing tells nothing."""
    given = hashed(key)
    found = None
    for entry in entries:
        if hmac.compare_digest(entry.sha256, given):
            found = entry
    return found


def bearer(header: str | None) -> str:
    """The key in an Authorization header, or nothing."""
    scheme, _, key = (header or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def allows(patterns: Sequence[str], model: str) -> bool:
    return any(fnmatch.fnmatchcase(model, pattern) for pattern in patterns)


class Bucket:
    """So much a minute, at once at most a minute's worth; may be overdrawn by what was not known beforehand."""

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_minute = per_minute
        self.level = per_minute
        self.at = now

    def wait(self, now: float, amount: float) -> float:
        """Seconds until `amount` is there; 0 is now."""
        self.level = min(self.per_minute, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now
        return max(0.0, (amount - self.level) * 60 / self.per_minute)


class Limits:
    """What every key has left. Each gateway counts for itself."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.requests: dict[str, Bucket] = {}
        self.tokens: dict[str, Bucket] = {}

    def admit(self, key: ApiKey) -> None:
        """Count one request; ApiError 429 where the key has none left."""
        now = self.clock()
        for per_minute, buckets, what in (
            (key.tokens_per_minute, self.tokens, "tokens"),
            (key.requests_per_minute, self.requests, "requests"),
        ):
            if per_minute <= 0:
                continue
            bucket = buckets.setdefault(key.name, Bucket(per_minute, now))
            seconds = bucket.wait(now, 1.0)
            if seconds > 0:
                message = f"This key's {per_minute:g} {what} a minute are used up."
                raise ApiError(429, "rate_limit_exceeded", message, retry_after=seconds)
            if what == "requests":
                bucket.level -= 1

    def spend(self, key: ApiKey, tokens: int) -> None:
        if key.tokens_per_minute > 0 and key.name in self.tokens:
            self.tokens[key.name].level -= tokens
