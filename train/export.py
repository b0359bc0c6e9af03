"""A sharded checkpoint to an ordinary Hugging Face folder, one output file at a time, in one process: it never
holds more than one output file of weights in memory.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from checkpoints import layout
from checkpoints.layout import Checkpoint
from checkpoints.sharded import StoreReader, read_manifest
from checkpoints.stores import Store
from train import templates

PREFIX = "export/"
FILE_BYTES = 4 << 30
_DTYPE = torch.bfloat16


def export(store: Store, checkpoint: Checkpoint, config: Any, tokenizer: Any, scratch: Path) -> int:
    """Write `export/` of a run from `checkpoint`; the number of bytes of weights.

    Raises checkpoints.sharded.Corrupt where the checkpoint is damaged.
    """
    reader = StoreReader(store, checkpoint, read_manifest(store, checkpoint))
    metadata = reader.read_metadata()
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    groups = list(_groups(metadata))
    index: dict[str, str] = {}
    total = 0
    for number, names in enumerate(groups, 1):
        file = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors = _read(reader, metadata, names)
        total += sum(tensor.nbytes for tensor in tensors.values())
        index |= dict.fromkeys(tensors, file)
        store.write(PREFIX + file, [save(tensors, metadata={"format": "pt"})])
    if len(groups) > 1:
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2, sort_keys=True)
        store.write(PREFIX + "model.safetensors.index.json", [text.encode()])
    _write_about(store, config, tokenizer, scratch)
    return total


def newest(store: Store) -> Checkpoint | None:
    """The newest committed checkpoint of a run."""
    return next(iter(layout.committed(entry.name for entry in store.list("checkpoints/"))), None)


def answer(folder: Path, question: str, *, max_new_tokens: int = 48) -> str:
    """What the exported model answers, greedily, loaded as anyone would load it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    said = model.generate(**prompt, max_new_tokens=max_new_tokens, do_sample=False)
    return str(tokenizer.decode(said[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def _groups(metadata: Metadata) -> Iterator[list[str]]:
    """The weights' names in groups of at most FILE_BYTES as exported."""
    group: list[str] = []
    size = 0
    for name, about in sorted(metadata.state_dict_metadata.items()):
        if not name.startswith("model.") or not isinstance(about, TensorStorageMetadata):
            continue
        nbytes = about.size.numel() * _DTYPE.itemsize
        if group and size + nbytes > FILE_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += nbytes
    if group:
        yield group


def _read(reader: StoreReader, metadata: Metadata, names: list[str]) -> dict[str, torch.Tensor]:
    """Whole tensors, put together from the parts of all ranks, under the model's own names."""
    whole: dict[str, Any] = {}
    for name in names:
        about = metadata.state_dict_metadata[name]
        assert isinstance(about, TensorStorageMetadata)
        whole[name] = torch.empty(about.size, dtype=about.properties.dtype)
    planner = DefaultLoadPlanner()
    planner.set_up_planner(whole, metadata, is_coordinator=True)
    reader.read_data(planner.finish_plan(planner.create_local_plan()), planner).wait()
    return {name.removeprefix("model."): tensor.to(_DTYPE) for name, tensor in whole.items()}


def _write_about(store: Store, config: Any, tokenizer: Any, scratch: Path) -> None:
    """Configuration, tokenizer and chat template."""
    folder = scratch / "export"
    config.use_cache = True
    config.dtype = _DTYPE
    config.save_pretrained(folder)
    tokenizer.chat_template = templates.without_marks(tokenizer.chat_template)
    tokenizer.save_pretrained(folder)
    for path in sorted(folder.iterdir()):
        store.write(PREFIX + path.name, [path.read_bytes()])
