"""A model's weights one at a time, out of a checkpoint, out of a base, or out of both put together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from checkpoints.blocks import read_manifest
from checkpoints.layout import Checkpoint
from checkpoints.sharded import StoreReader
from checkpoints.stores import Store
from train import lora, model
from train.config import LoraConfig, ModelConfig, TrainerRecipe
from train.errors import TrainError

_PREFIX = "model."
"""What the names of a checkpoint's weights begin with; the optimizer's begin otherwise."""


class Weights(Protocol):
    """Tensors by name, read when they are asked for."""

    @property
    def shapes(self) -> Mapping[str, torch.Size]: ...

    def read(self, name: str) -> torch.Tensor: ...


class Checkpointed:
    """What a checkpoint holds of a model. Reading raises checkpoints.blocks.Corrupt where it is damaged."""

    def __init__(self, store: Store, checkpoint: Checkpoint) -> None:
        self._reader = StoreReader(store, checkpoint, read_manifest(store, checkpoint))
        self._metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)
        self._about = {
            name.removeprefix(_PREFIX): about
            for name, about in self._metadata.state_dict_metadata.items()
            if name.startswith(_PREFIX) and isinstance(about, TensorStorageMetadata)
        }
        self.shapes: Mapping[str, torch.Size] = {name: about.size for name, about in self._about.items()}

    def read(self, name: str) -> torch.Tensor:
        """A whole tensor, put together from the parts of all ranks."""
        about = self._about[name]
        whole: dict[str, Any] = {_PREFIX + name: torch.empty(about.size, dtype=about.properties.dtype)}
        planner = DefaultLoadPlanner()
        planner.set_up_planner(whole, self._metadata, is_coordinator=True)
        self._reader.read_data(planner.finish_plan(planner.create_local_plan()), planner).wait()
        tensor: torch.Tensor = whole[_PREFIX + name]
        return tensor


class Base:
    """A base model's own weights: from safetensors one at a time, otherwise all at once."""

    def __init__(self, config: ModelConfig, found: Any, seed: int) -> None:
        self._files: dict[str, Path] = {}
        self._loaded: dict[str, torch.Tensor] = {}
        self.shapes: Mapping[str, torch.Size]
        folder = None if config.base == "tiny" else _safetensors_of(config.base)
        if folder is not None:
            self.shapes = self._index(folder)
            return
        built = model.build(config, found, attention="sdpa", weights=True, seed=seed)
        self._loaded = dict(built.state_dict())
        if found.tie_word_embeddings:
            self._loaded.pop("lm_head.weight", None)
        self.shapes = {name: tensor.shape for name, tensor in self._loaded.items()}

    def read(self, name: str) -> torch.Tensor:
        if name in self._loaded:
            return self._loaded[name]
        from safetensors import safe_open

        with safe_open(self._files[name], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor

    def _index(self, folder: Path) -> dict[str, torch.Size]:
        from safetensors import safe_open

        shapes = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  it is no dictionary
                    shapes[name] = torch.Size(file.get_slice(name).get_shape())
                    self._files[name] = path
        return shapes


class Merged:
    """A base with the adapters of a checkpoint added."""

    def __init__(self, base: Base, adapters: Checkpointed, config: LoraConfig) -> None:
        self._base = base
        self._config = config
        self._adapters = {name: adapters.read(name) for name in adapters.shapes}
        self.shapes: Mapping[str, torch.Size] = base.shapes
        strange = lora.layers(self._adapters) - set(base.shapes)
        if strange:
            raise TrainError(f"The checkpoint has an adapter of {min(strange)}, which the base does not have.")

    def read(self, name: str) -> torch.Tensor:
        return lora.merged(name, self._base.read(name), self._adapters, self._config)


def weights_of(store: Store, checkpoint: Checkpoint, recipe: TrainerRecipe) -> Weights:
    """The model as it was at `checkpoint`. Raises checkpoints.blocks.Corrupt where that is damaged."""
    checkpointed = Checkpointed(store, checkpoint)
    if recipe.lora is None:
        return checkpointed
    tokenizer = model.load_tokenizer(recipe.model, None)
    found = model.load_config(recipe.model, None, len(tokenizer))
    return Merged(Base(recipe.model, found, recipe.train.seed), checkpointed, recipe.lora)


def _safetensors_of(base: str) -> Path | None:
    """The folder with a base's safetensors, fetched from the Hub where it is a name; None where it has none."""
    place = model.find_base(base)
    folder = Path(place.path)
    if place.gguf_file is None and not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(model.from_hub(base, lambda: snapshot_download(base, allow_patterns=["*.safetensors"])))
    return folder if place.gguf_file is None and any(folder.glob("*.safetensors")) else None
