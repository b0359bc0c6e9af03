"""What gateway and worker say to each other: MessagePack lists of small records in WebSocket messages.

A request is a number the gateway picks, unique on its connection. Knows no network.
"""

import msgspec

PATH = "/worker"
"""Where on a gateway workers connect."""

REFUSED = 4403
"""Close code of a connection whose token or models were refused; the reason says which."""

LONGEST_BYTES = 64 * 1024 * 1024
"""Of a message, either way."""

BEAT_SECONDS = 0.25
"""A worker says how it is so often, and whatever it says counts as a sign of life."""


class Record(msgspec.Struct, array_like=True, tag=True, gc=False):
    """One thing said; more than one travel in a message."""


class Hello(Record):
    """Worker: what I am. The first record of a connection."""

    worker: str
    models: list[str]
    slots: int


class Welcome(Record):
    """Gateway: you are in."""


class Beat(Record):
    """Worker: how I am."""

    healthy: bool
    elsewhere: int
    """Requests under way for other gateways."""
    waiting: int
    """Requests the engine has not begun, where it tells."""
    tokens_per_second: float


class Begin(Record):
    """Gateway: answer this."""

    request: int
    endpoint: str
    """`chat/completions`, `completions`, `embeddings`: the engine's path below /v1."""
    mode: str
    """`text`: stream text that can go on elsewhere; `raw`: stream the engine's events; `whole`: one document."""
    model: str
    answer_id: str
    body: bytes
    """The client's JSON."""
    said: list[str]
    """What the client has of this answer already, in the engine's pieces; go on from there."""
    tokens: int
    """How many tokens that was."""
    prompt_ids: list[int]
    said_ids: list[int]
    """The same as token ids, where the engine gave them."""


class Cancel(Record):
    """Gateway: nobody waits for this any more."""

    request: int


class Text(Record):
    """Worker: more of the answer, in the engine's pieces."""

    request: int
    pieces: list[str]
    tokens: int
    ids: list[int]


class Prompt(Record):
    """Worker: the engine's count and ids of the prompt, as soon as it is known."""

    request: int
    tokens: int
    ids: list[int]


class Events(Record):
    """Worker: events of the engine to pass on as they are."""

    request: int
    data: bytes


class End(Record):
    """Worker: the answer is complete."""

    request: int
    finish_reason: str
    tokens: int
    """To be added to the count of tokens (below 0 where the pieces held fewer)."""
    prompt_tokens: int
    """0 where the engine does not tell."""


class Whole(Record):
    """Worker: the engine's document, or its refusal."""

    request: int
    status: int
    body: bytes


class Failed(Record):
    """Worker: the engine did not do it; somebody else should."""

    request: int
    reason: str


class Unfit(Record):
    """Worker: this answer is more than text, so it cannot be collected from pieces; ask for it whole."""

    request: int


class Leaving(Record):
    """Worker: my machine goes; send no more, move what you can."""

    reason: str


ToWorker = Welcome | Begin | Cancel
OfRequest = Text | Prompt | Events | End | Whole | Failed | Unfit
ToGateway = Hello | Beat | Leaving | OfRequest

encode = msgspec.msgpack.Encoder().encode
decode_at_worker = msgspec.msgpack.Decoder(list[ToWorker]).decode
decode_at_gateway = msgspec.msgpack.Decoder(list[ToGateway]).decode
