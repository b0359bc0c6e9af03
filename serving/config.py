"""What a person says of a gateway and of a worker. Light: the launcher reads it too."""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Literal

import msgspec

ENVIRONMENT = "VLAUNCH_SERVING"
"""Variable in which `python -m serving` finds its configuration as JSON."""

CLOUDS = ("aws", "gcp", "azure")
"""Whose metadata servers say that a machine will be taken away."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[keys]]` entry: who may ask, what, and how much."""

    name: str
    """Shown in metrics and the audit log instead of the key."""

    sha256: str
    """Hash of the key, in hexadecimal. `vlaunch gateway --new-key NAME` makes a key and this entry."""

    tenant: str = ""
    """Sees models of workers of its own tenant, and those of the empty one, which is everybody's."""

    models: tuple[str, ...] = ("*",)
    """Names, or patterns with `*`."""

    requests_per_minute: float = 0.0
    """0 is no limit."""

    tokens_per_minute: float = 0.0
    """Of prompts and answers together; 0 is no limit."""


class WorkerToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[worker_tokens]]` entry: who may plug in, and with which models."""

    name: str
    """Shown in logs instead of the token."""

    sha256: str
    """Hash of the token, in hexadecimal."""

    tenant: str = ""
    """Whose models these workers serve; empty is everybody's."""

    models: tuple[str, ...] = ("*",)
    """Models its workers may claim: names, or patterns with `*`."""


class ModerationRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[moderation]]` entry: what looks at requests before a model does. Every entry of a model must agree."""

    name: str
    """Shown in logs."""

    kind: Literal["words", "openai", "classifier"]
    """A list of words; OpenAI's moderation endpoint or one of its form; a text classifier that answers
    `{"inputs": text}` with labels and scores."""

    models: tuple[str, ...] = ("*",)
    """Names, or patterns with `*`."""

    words: str = ""
    """For `words`: a file, a word or phrase a line; a line that starts with # is a comment."""

    url: str = "https://api.openai.com/v1/moderations"
    model: str = "omni-moderation-latest"
    """For `openai`."""

    key_variable: str = ""
    """The environment variable with the key that `url` wants; empty is none."""

    labels: tuple[str, ...] = ()
    """For `classifier`: the labels that flag a text..."""

    threshold: float = 0.5
    """...from this score on."""

    timeout_seconds: float = 5.0
    when_down: Literal["closed", "open"] = "closed"
    """While it gives no verdict: nothing is let through, or everything is, and the log says so."""

    def __post_init__(self) -> None:
        if self.kind == "words" and not self.words:
            raise ValueError(f"moderation '{self.name}' is a list of words, and 'words' names no file")
        if self.kind == "classifier" and not self.labels:
            raise ValueError(f"moderation '{self.name}' is a classifier, and 'labels' names none that flags a text")
        if self.timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds of moderation '{self.name}' must be above 0")


class SkyServeEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[skyserve]]` entry: a model whose replicas SkyServe scales by the requests it sees."""

    model: str
    url: str
    """The service's own endpoint, as `sky serve status` shows it. It is told of every request for the model."""

    def __post_init__(self) -> None:
        if not self.model or not self.url.startswith(("http://", "https://")):
            raise ValueError(f"'{self.model}={self.url}' is not a model and its address; write MODEL=http://host:port")


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gateway's TOML file, or its defaults."""

    host: str = "127.0.0.1"
    """Where to listen. Beyond this machine only with keys."""

    port: int = 8080
    """0 takes a free one."""

    keys: tuple[ApiKey, ...] = ()
    """With none, whoever reaches the port may ask."""

    worker_tokens: tuple[WorkerToken, ...] = ()
    """With none, no worker can register (`vlaunch gateway` takes one from VLAUNCH_WORKER_TOKEN)."""

    lost_seconds: float = 0.9
    """A worker that says nothing for so long is lost."""

    first_token_seconds: float = 120.0
    """A request without a first token for so long is tried elsewhere."""

    stall_seconds: float = 10.0
    """A stream without a token for so long goes on elsewhere."""

    queue_limit: int = 512
    """Requests that may wait for a worker, per model."""

    queue_seconds: float = 30.0
    """How long one may wait for a free worker, and how long half an answer waits for one to go on."""

    no_worker_seconds: float = 5.0
    """How long a request waits where no worker of its model is ready."""

    grace_seconds: float = 1.0
    """After a start, how long an unknown model is waited for: workers are connecting again."""

    client_seconds: float = 30.0
    """How long a client may take to send a request, or to take in what it is sent."""

    body_megabytes: float = 8.0
    """The largest request."""

    connection_limit: int = 16384
    """Connections beyond it are closed at once."""

    drain_seconds: float = 25.0
    """When told to stop, how long requests under way may take."""

    audit_file: str = ""
    """Where to append one JSON line a request; empty is nowhere."""

    audit_contents: bool = False
    """Whether those lines hold what was asked and answered."""

    moderation: tuple[ModerationRule, ...] = ()
    """What looks at requests before a model does."""

    skyserve: tuple[SkyServeEndpoint, ...] = ()
    """Services whose autoscaling is to see the requests that come here."""

    page: bool = True
    """Whether the chat page is at `/`."""

    page_folder: str = ""
    """Where the page writes down votes, and conversations whose person agreed; empty is nowhere."""

    def __post_init__(self) -> None:
        seconds = ("lost_seconds", "first_token_seconds", "stall_seconds", "queue_seconds", "client_seconds")
        for name in (*seconds, "body_megabytes", "connection_limit"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name):g}; it must be above 0")
        if not 0 <= self.port < 65536:
            raise ValueError(f"port is {self.port}; it must be 0 to 65535")
        entries: tuple[ApiKey | WorkerToken, ...] = (*self.keys, *self.worker_tokens)
        for entry in entries:
            if len(entry.sha256) != 64 or set(entry.sha256) - set("0123456789abcdef"):
                raise ValueError(f"sha256 of '{entry.name}' is not 64 hexadecimal digits in lower case")


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A worker's flags."""

    gateways: tuple[str, ...]
    """Every gateway's address, `http://host:port` or `https://...`; the worker connects to all."""

    models: tuple[str, ...]
    """`NAME`, or `NAME=ENGINE_NAME` where the engine calls it something else."""

    engine: str = "http://127.0.0.1:8000"
    """An OpenAI-compatible server."""

    token: str = ""
    """The registration token."""

    name: str = ""
    """Shown in logs; empty is the host and process."""

    slots: int = 256
    """Requests at a time; the rest wait at the gateway."""

    kind: str = "auto"
    """How the engine continues an answer: `vllm`, `transformers`, `openai`, or found out from it."""

    tokenizer: str = ""
    """For `transformers`: the folder or name to load the chat template from; empty is the engine's model."""

    notice: str = ""
    """Who says that the machine is about to be taken away: the metadata server of `aws`, `gcp` or `azure`, or an
    address that answers 200 from then on; empty is nobody."""

    ready_file: str = ""
    """A file that is there while a gateway has this worker and its engine is well; empty is none."""

    leave_seconds: float = 25.0
    """When told to leave, how long answers under way may take to move or end."""

    def __post_init__(self) -> None:
        if not self.gateways:
            raise ValueError("no gateway was given")
        if not self.models:
            raise ValueError("no model was given")
        addresses = [self.notice] if self.notice not in ("", *CLOUDS) else []
        for address in (*self.gateways, self.engine, *addresses):
            if not address.startswith(("http://", "https://")):
                raise ValueError(f"'{address}' is not an address; write http://host:port")
        if self.kind not in ("auto", "vllm", "transformers", "openai"):
            raise ValueError(f"there is no engine kind '{self.kind}'; it is auto, vllm, transformers or openai")
        if self.slots < 1:
            raise ValueError(f"slots is {self.slots}; it must be at least 1")


def new_key(kind: str) -> str:
    """A key to give away; only its hash is kept."""
    return f"vl-{kind}-{secrets.token_urlsafe(32)}"


def hashed(key: str) -> str:
    """Keys are 32 random bytes, so a plain hash cannot be guessed back; a slow one would slow every request."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def load_gateway(path: str | os.PathLike[str]) -> GatewayConfig:
    """Read a gateway's TOML file; ValueError with a sentence where it is wrong."""
    try:
        return msgspec.toml.decode(Path(path).read_bytes(), type=GatewayConfig)
    except OSError as failure:
        raise ValueError(f"{path} cannot be read: {failure.strerror}") from failure
    except msgspec.DecodeError as failure:
        raise ValueError(f"{path}: {failure}") from failure
