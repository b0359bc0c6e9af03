"""A sharded checkpoint to an ordinary Hugging Face folder, tensor by tensor: in one process, and with memory for the
largest tensor rather than for the model.

    python -m train.export STORE/RUN --out DIR [--step N]
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from checkpoints import layout
from checkpoints.blocks import Corrupt
from checkpoints.layout import Checkpoint
from checkpoints.run import reading
from checkpoints.stores import Store, StoreError, StoreRefused, open_store
from train import model, templates
from train.config import REFUSED, read_recipe
from train.errors import TrainError
from train.weights import Weights, weights_of

PREFIX = "export/"
"""Where a run's own export is, in its store."""
FILE_BYTES = 4 << 30
_DTYPE = torch.bfloat16
_RECIPE = "recipe.toml"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    step: int
    size: int
    """Bytes of weights."""
    files: int
    """Files of weights."""


def export_run(
    store: Store, target: Store, *, scratch: Path, say: Any, step: int | None = None, prefix: str = ""
) -> Exported:
    """Write the run in `store` as a Hugging Face folder below `prefix` of `target`: its newest whole checkpoint, or
    that of `step`.

    Raises TrainError where there is no such checkpoint or none is whole.
    """
    recipe = read_recipe(_text(store))
    for checkpoint in _wanted(store, step):
        try:
            with _marked(store, checkpoint, say):
                weights = weights_of(store, checkpoint, recipe)
                size, files = _write_weights(weights, target, prefix)
        except Corrupt as failure:
            say(f"checkpoint {checkpoint.prefix.rstrip('/')} is passed over: {failure}")
            continue
        _write_about(store, target, prefix, scratch, say)
        return Exported(checkpoint.step, size, files)
    raise TrainError(f"No checkpoint of {store.uri} that was asked for is whole; nothing was exported.")


def _marked(store: Store, checkpoint: Checkpoint, say: Any) -> contextlib.ExitStack:
    """Meanwhile a run that goes on does not delete `checkpoint`, where this user may tell it."""
    held = contextlib.ExitStack()
    try:
        held.enter_context(reading(store, checkpoint))
    except StoreRefused as failure:
        say(f"a run that goes on may delete {checkpoint.prefix.rstrip('/')} while it is read: {failure}")
    return held


def newest(store: Store) -> Checkpoint | None:
    """The newest committed checkpoint of a run."""
    return next(iter(layout.committed(entry.name for entry in store.list("checkpoints/"))), None)


def verify(folder: Path) -> None:
    """Load a Hugging Face folder as far as that goes without holding it: every tensor that the model of its
    configuration has, and no other, is there, in the right shape, and finite; the tokenizer loads. Raises TrainError.
    """
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(folder)
    from_config: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        built = from_config(AutoConfig.from_pretrained(folder))
    wanted = {name: tensor.shape for name, tensor in built.state_dict().items()}
    if built.config.tie_word_embeddings:
        wanted.pop("lm_head.weight", None)
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  it is no dictionary
                tensor = file.get_tensor(name)
                if wanted.pop(name, None) != tensor.shape:
                    raise TrainError(f"{path} has {name} in the shape {list(tensor.shape)}, which the model has not.")
                if not torch.isfinite(tensor).all():
                    raise TrainError(f"{path} has numbers in {name} that are not finite.")
    if wanted:
        raise TrainError(f"{folder} lacks {next(iter(wanted))}.")


def answer(folder: Path, question: str, *, max_new_tokens: int = 48) -> str:
    """What the exported model answers, greedily, loaded as anyone would load it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    said = network.generate(**prompt, max_new_tokens=max_new_tokens, do_sample=False)
    return str(tokenizer.decode(said[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def _text(store: Store) -> str:
    try:
        return store.read(_RECIPE).decode()
    except FileNotFoundError:
        raise TrainError(f"There is no run at {store.uri}: it has no {_RECIPE}.") from None


def _wanted(store: Store, step: int | None) -> list[Checkpoint]:
    there = layout.committed(entry.name for entry in store.list("checkpoints/"))
    if not there:
        raise TrainError(f"The run at {store.uri} has no committed checkpoint yet.")
    wanted = [checkpoint for checkpoint in there if step in (None, checkpoint.step)]
    if not wanted:
        steps = ", ".join(str(checkpoint.step) for checkpoint in there)
        raise TrainError(f"The run at {store.uri} has no checkpoint of step {step}; it has those of {steps}.")
    return wanted


def _write_weights(weights: Weights, target: Store, prefix: str) -> tuple[int, int]:
    """The files of weights and their index; bytes and number of files."""
    groups = list(_groups(weights))
    index: dict[str, str] = {}
    for number, names in enumerate(groups, 1):
        file = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        index |= dict.fromkeys(names, file)
        target.write(prefix + file, _safetensors(weights, names))
    total = sum(_size(weights, name) for name in index)
    if len(groups) > 1:
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2, sort_keys=True)
        target.write(prefix + "model.safetensors.index.json", [text.encode()])
    return total, len(groups)


def _size(weights: Weights, name: str) -> int:
    return int(weights.shapes[name].numel()) * _DTYPE.itemsize


def _groups(weights: Weights) -> Iterator[list[str]]:
    """The weights' names in groups of at most FILE_BYTES as exported."""
    group: list[str] = []
    size = 0
    for name in sorted(weights.shapes):
        if group and size + _size(weights, name) > FILE_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += _size(weights, name)
    if group:
        yield group


def _safetensors(weights: Weights, names: list[str]) -> Iterator[bytes | memoryview]:
    """One file in the format's own words: the length of a header in JSON, the header, the tensors' bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in names:
        end = at + _size(weights, name)
        header[name] = {"dtype": "BF16", "shape": list(weights.shapes[name]), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        tensor = weights.read(name).to(_DTYPE).contiguous()
        raw: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        yield memoryview(raw)


def _write_about(store: Store, target: Store, prefix: str, scratch: Path, say: Any) -> None:
    """Configuration, tokenizer and chat template, from what the run keeps of the base."""
    from transformers import AutoConfig, AutoTokenizer

    kept = model.kept(store, scratch / "model", say)
    if kept is None:
        raise TrainError(f"The run at {store.uri} does not hold its model's configuration whole.")
    config = AutoConfig.from_pretrained(kept)
    config.use_cache = True
    config.dtype = _DTYPE
    folder = scratch / "about"
    config.save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(kept)
    tokenizer.chat_template = templates.without_marks(tokenizer.chat_template)
    tokenizer.save_pretrained(folder)
    for path in sorted(folder.iterdir()):
        target.write(prefix + path.name, [path.read_bytes()])


def main(arguments: list[str]) -> int:
    """The command; what was written as JSON on standard output, what there is to say on standard error."""
    parser = argparse.ArgumentParser(prog="python -m train.export", description=__doc__)
    parser.add_argument("run", help="the run's store: s3://bucket/path/RUN, gs://bucket/path/RUN or a folder")
    parser.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--step", type=int, help="a committed step; the newest by default")
    given = parser.parse_args(arguments)

    def say(text: str) -> None:
        print(f"vlaunch: {text}", file=sys.stderr, flush=True)

    try:
        if given.out.exists() and (not given.out.is_dir() or any(given.out.iterdir())):
            raise TrainError(f"{given.out} is not an empty folder; name another with --out.")
        with tempfile.TemporaryDirectory() as scratch:
            target = open_store(str(given.out))
            done = export_run(open_store(given.run), target, scratch=Path(scratch), say=say, step=given.step)
        (given.out / ".partial").rmdir()  # where the folder store kept files while they were written
        verify(given.out)
    except (TrainError, StoreError, Corrupt) as failure:
        say(str(failure))
        return REFUSED
    print(json.dumps({"step": done.step, "bytes": done.size, "files": done.files, "out": str(given.out)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
