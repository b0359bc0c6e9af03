"""Tokens a second of CPU of the trainer's own step, beside Hugging Face's Trainer on the same model: as the original
recipe does it (each conversation padded to the context), and on the very same packed rows. `python
benchmarks/training.py [--precision fp32]`; about four minutes on one core.

CPU time is counted, not time, so that other work on the machine does not matter; tokens are those of the
conversations, padding is none. Each way runs in a process of its own, on one thread, after a step that is not counted.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

CONTEXT = 512
VOCABULARY = 4096
ROWS = 8
"""A batch."""
CONVERSATIONS = 160
WAYS = ("ours", "trainer-packed", "trainer-padded")
PADDED_AT_LEAST, PACKED_AT_LEAST = 3.5, 1.0


def conversations() -> Any:
    """Conversations with the lengths of shared ones, lognormal about 140 tokens."""
    from train.data import Tokens

    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(np.log(140), 0.9, CONVERSATIONS), 16, CONTEXT).astype(np.int64)
    total = int(lengths.sum())
    ids = draw.integers(3, VOCABULARY, total).astype(np.int32)
    return Tokens(ids, draw.random(total) < 0.6, np.cumsum([0, *lengths]).astype(np.int64))


def network(attention: str = "sdpa") -> Any:
    """The model, 8.5 million parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=256, intermediate_size=704, num_hidden_layers=8, num_attention_heads=8,
            num_key_value_heads=8, vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, use_cache=False,
            attn_implementation=attention,
        )
    )  # fmt: skip


def ours(precision: str) -> tuple[float, int]:
    """CPU seconds and tokens of the trainer's steps over the packed rows."""
    from checkpoints.fence import Fence
    from checkpoints.stores.folder import FolderStore
    from train import attention, model
    from train.config import DataConfig, ModelConfig, TrainConfig, TrainerRecipe
    from train.data import Rows
    from train.loop import Trainer
    from train.machine import Machine
    from train.preemption import Notice
    from train.progress import Progress

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    tokens = conversations()
    rows = Rows(tokens, CONTEXT, seed=0, pad_id=0)
    train: Any = TrainConfig(
        epochs=1, global_batch=ROWS, micro_batch=ROWS, learning_rate=1e-4, schedule="constant", warmup_fraction=0,
        precision=precision, activation_checkpointing=False,
    )  # fmt: skip
    config = ModelConfig(base="tiny", parameters=0.0085, native_context_tokens=CONTEXT, context_tokens=CONTEXT)
    accelerate = model.accelerator(train)
    kernel, _ = attention.choose(config.attention, precision)
    sharded, optimizer = model.shard(accelerate, network(kernel), train)
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        trainer = Trainer(
            TrainerRecipe(model=config, data=DataConfig(conversations=""), train=train),
            model=sharded, optimizer=optimizer, accelerate=accelerate, rows=rows, store=store, attempt=None,
            attempt_number=1, recipe_sha256="", life_seconds=3600, notice=Notice(),
            fence=Fence(store, 1, exit_code=1, say=print), progress=Progress(None, Machine("", None, ""), None),
        )  # fmt: skip
        sharded.train()
        began, seen = 0.0, 0
        for step in range(trainer.steps):
            if step == 1:
                began = time.process_time()
            batch = rows.micro_batches(step, global_batch=ROWS, micro_batch=ROWS, rank=0, world_size=1)
            seen += 0 if step == 0 else sum(len_of(tokens, rows, row) for row in batch[0])
            trainer._one_step(time.monotonic())  # without the saves and the end of a whole run
    return time.process_time() - began, seen


def len_of(tokens: Any, rows: Any, row: int) -> int:
    """The tokens of the conversations in a row."""
    return int(sum(tokens.starts[each + 1] - tokens.starts[each] for each in rows.records(row)))


def theirs(precision: str, *, packed: bool) -> tuple[float, int]:
    """CPU seconds and tokens of Hugging Face's Trainer."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from train.data import IGNORED, Rows

    tokens = conversations()
    rows = Rows(tokens, CONTEXT, seed=0, pad_id=0)
    samples: list[dict[str, Any]] = []
    sizes: list[int] = []
    if packed:
        for row in range(len(rows.rows) // ROWS * ROWS):
            batch = rows.batch([row])
            samples.append({"input_ids": batch.ids[0], "labels": batch.labels[0], "position_ids": batch.positions[0]})
            sizes.append(len_of(tokens, rows, row))
    else:
        for start, end in zip(tokens.starts, tokens.starts[1:], strict=False):
            ids, labels, mask = np.zeros(CONTEXT, np.int64), np.full(CONTEXT, IGNORED), np.zeros(CONTEXT, np.int64)
            ids[: end - start] = tokens.ids[start:end]
            labels[: end - start] = np.where(tokens.trained[start:end], tokens.ids[start:end], IGNORED)
            mask[: end - start] = 1
            samples.append({"input_ids": ids, "labels": labels, "attention_mask": mask})
            sizes.append(int(end - start))

    class Clock(TrainerCallback):  # type: ignore[misc]
        began = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                Clock.began = time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=ROWS, num_train_epochs=1, use_cpu=True, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, bf16=precision == "bf16",
            learning_rate=1e-4, lr_scheduler_type="constant", max_grad_norm=1.0, dataloader_num_workers=0, seed=0,
            train_sampling_strategy="sequential",
        )  # fmt: skip
        data: Any = [{key: torch.from_numpy(np.asarray(value)) for key, value in each.items()} for each in samples]
        trainer: Any = Trainer(model=network(), args=arguments, train_dataset=data, callbacks=[Clock()])
        trainer.train()
    return time.process_time() - Clock.began, sum(sizes[ROWS:])


def measure(way: str, precision: str) -> float:
    """Tokens a second of CPU, in this process."""
    import torch

    torch.set_num_threads(1)
    seconds, tokens = ours(precision) if way == "ours" else theirs(precision, packed=way == "trainer-packed")
    return tokens / seconds


def main() -> int:
    """Print the three ways and the ratios; 1 where one is under its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--way", choices=WAYS)
    given = parser.parse_args()
    if given.way:
        print(measure(given.way, given.precision))
        return 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    found = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--precision", given.precision]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found[way] = float(done.stdout.split()[-1])
        print(f"{way:15s} {found[way]:8,.0f} tokens a second of CPU, {given.precision}", flush=True)
    padded, packed = found["ours"] / found["trainer-padded"], found["ours"] / found["trainer-packed"]
    print(f"{padded:.2f} times the original recipe, {packed:.2f} times Trainer on the same packed rows")
    return int(padded < PADDED_AT_LEAST or packed < PACKED_AT_LEAST)


if __name__ == "__main__":
    sys.exit(main())
