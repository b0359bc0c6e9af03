"""A base model as an ordinary Hugging Face folder, for whoever serves it untrained: `python -m train.base BASE
TEMPLATE FOLDER`, with base and template as in a recipe's `[model]`.
"""

import shutil
import sys
from pathlib import Path

import torch

from train import templates
from train.config import REFUSED, ModelConfig
from train.errors import TrainError
from train.model import build, load_config, load_tokenizer


def write(config: ModelConfig, folder: Path) -> None:
    """Write `folder`, whole or not at all. Raises TrainError where the base cannot be had."""
    tokenizer = load_tokenizer(config, None)
    found = load_config(config, None, len(tokenizer))
    model = build(config, found, attention="sdpa", weights=True, seed=0).to(torch.bfloat16)
    model.config.use_cache = True
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.chat_template = templates.without_marks(tokenizer.chat_template)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)


def main(arguments: list[str]) -> int:
    """Write the folder, or say in a sentence why not."""
    base, template, folder = arguments
    config = ModelConfig(
        base=base, parameters=1.0, native_context_tokens=512, context_tokens=512,
        template=template,  # type: ignore[arg-type]
    )  # fmt: skip
    try:
        write(config, Path(folder))
    except TrainError as failure:
        print(f"vlaunch: {failure}")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
