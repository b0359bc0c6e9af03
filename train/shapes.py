"""The shapes of known models and what a step needs of a GPU, in numbers alone: light and without torch."""

import msgspec

LOSS_CHUNK_TOKENS = 256
"""train.loss holds the logits of so many tokens in fp32, three times."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder of the Llama family."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False
    """The output layer is the embedding."""

    @property
    def kv_width(self) -> int:
        return self.hidden // self.heads * self.kv_heads

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        projections = 2 * self.hidden * (self.hidden + self.kv_width) + 3 * self.hidden * self.intermediate
        return projections + 2 * self.hidden

    @property
    def parameters(self) -> int:
        return self.layers * self.layer + self.embedding * (1 if self.tied else 2) + self.hidden


def _shape(name: str, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> Shape:
    return Shape(
        name=name.removesuffix("*"), hidden=hidden, intermediate=intermediate, layers=layers, heads=heads,
        kv_heads=kv_heads, vocabulary=vocabulary, tied=name.endswith("*"),
    )  # fmt: skip


# From the models' published configurations; * marks tied embeddings.
SHAPES = [
    _shape("SmolLM2 135M*", 576, 1536, 30, 9, 3, 49152),
    _shape("SmolLM2 360M*", 960, 2560, 32, 15, 5, 49152),
    _shape("TinyLlama 1.1B", 2048, 5632, 22, 32, 4, 32000),
    _shape("Llama 3.2 3B*", 3072, 8192, 28, 24, 8, 128256),
    _shape("Llama 2 7B", 4096, 11008, 32, 32, 32, 32000),
    _shape("Llama 3 8B", 4096, 14336, 32, 32, 8, 128256),
    _shape("Llama 2 13B", 5120, 13824, 40, 40, 40, 32000),
    _shape("Qwen 2.5 32B", 5120, 27648, 64, 40, 8, 152064),
    _shape("Llama 2 70B", 8192, 28672, 80, 64, 8, 32000),
    _shape("Llama 3 70B", 8192, 28672, 80, 64, 8, 128256),
]


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on one GPU at one moment of a step."""

    moment: str
    weights: float
    optimizer: float
    gradients: float
    """Sharded ones; what is not sharded yet is among the buffers."""
    activations: float
    buffers: float
    """Whole weights of the layer at work and the next, whole gradients, what is on its way between GPUs."""

    @property
    def total(self) -> float:
        return self.weights + self.optimizer + self.gradients + self.activations + self.buffers
