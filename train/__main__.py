"""`torchrun -m train`: one process of one attempt. Everything it needs is in the variables the task sets and in
the run's store.
"""

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from checkpoints.stores import Store, StoreError, StoreRefused, Transfer, open_store
from train.config import FINISHED, INTERRUPTED, MACHINE_LIFE, REFUSED, TrainerRecipe, read_recipe
from train.errors import TrainError
from train.machine import RECIPE, RUN, STORE, Machine, here, required, scratch
from train.preemption import GRACE, Notice

_RECIPE_NAME = "recipe.toml"


def main(open_run: Any = None) -> int:
    """Work on the run that the environment names; the exit code. `open_run` stands in for open_store."""
    notice = Notice(float(os.environ.get(GRACE, "30")))
    notice.listen()
    try:
        return _attempt(open_run or open_store, notice)
    except (TrainError, StoreError) as failure:
        _last_words(str(failure))
        return REFUSED


def _last_words(text: str) -> None:
    """Said once for all ranks, where the launcher finds it."""
    if os.environ.get("RANK", "0") == "0":
        print(f"vlaunch: {text}", flush=True)


def _attempt(open_run: Any, notice: Notice) -> int:
    text = required(os.environ, RECIPE)
    recipe = _read(text)
    transfer = Transfer(memory_mb=recipe.checkpoints.transfer_memory_mb)
    store = open_run(required(os.environ, STORE), transfer).inside(required(os.environ, RUN))
    _freeze(store, text)
    import torch
    import torch.distributed as dist

    from train import model

    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.train.seed)
    accelerate = model.accelerator(recipe.train)
    # One process of a machine asks its metadata server; the ranks share what they know after every step.
    cloud = here(os.environ).place.partition("/")[0] if os.environ.get("LOCAL_RANK", "0") == "0" else ""
    try:
        _quiet()
        with notice.watching(cloud, os.environ):
            return _train(recipe, text, store, accelerate, notice)
    finally:
        dist.destroy_process_group()


def _train(recipe: TrainerRecipe, text: str, store: Store, accelerate: Any, notice: Notice) -> int:
    import torch.distributed as dist

    from checkpoints.fence import Fence
    from checkpoints.sharded import recipe_digest
    from train import model
    from train.loop import Trainer
    from train.progress import Progress, spent_before

    machine = here(os.environ)
    attempt = _begin(store, machine) if dist.get_rank() == 0 else None
    numbers = [attempt.number if attempt else 0]
    dist.broadcast_object_list(numbers, src=0)
    before = spent_before(store, numbers[0]) if attempt else (None, 0.0)
    progress = Progress(attempt, machine, *before)
    progress.say(f"started on {machine.place} with {dist.get_world_size()} processes")
    folder = scratch() / f"rank-{dist.get_rank()}"
    network, rows = _prepare(recipe, store, folder, keeps=attempt is not None, progress=progress)
    network, optimizer = model.shard(accelerate, network, recipe.train)
    progress.utilisation = model.utilisation(network, dist.get_world_size()) if recipe.lora is None else None
    with Fence(store, numbers[0], exit_code=REFUSED, say=progress.say) as fence:
        trainer = Trainer(
            recipe, model=network, optimizer=optimizer, accelerate=accelerate, rows=rows, store=store,
            attempt=attempt, attempt_number=numbers[0], recipe_sha256=recipe_digest(text),
            life_seconds=_expected_life(recipe, store, numbers[0]) if attempt else 0.0,
            fence=fence, notice=notice, progress=progress,
        )  # fmt: skip
        resumed = trainer.resume()
        if resumed:
            progress.say(f"resumed from the checkpoint of step {resumed}/{trainer.steps}")
            progress.resumed(store, resumed)
        ended = trainer.run()
        if attempt is None:
            return FINISHED if ended == "finished" else INTERRUPTED if ended == "notice" else REFUSED
        if ended == "notice":
            attempt.event("stopped", reason=f"notice ({notice.source})", step=trainer.step)
            held = trainer.saving.committed_step
            progress.say(f"told to leave ({notice.source or 'another rank'}): step {held} is committed")
            return INTERRUPTED
        if owner := fence.superseded_by or attempt.newer():
            raise TrainError(f"Attempt {owner} has taken over this run; attempt {attempt.number} stops.")
        return _finish(recipe, store, attempt, folder, progress)


def _begin(store: Store, machine: Machine) -> Any:
    """Rank 0's attempt, with what the ledger wants to know of its machine."""
    import torch.distributed as dist

    from checkpoints.run import Attempt

    about = {
        "place": machine.place,
        "usd_per_hour": machine.usd_per_hour,
        "price_source": machine.price_source,
        "world_size": dist.get_world_size(),
        "job_id": os.environ.get("SKYPILOT_MANAGED_JOB_ID", ""),
        "task_id": os.environ.get("SKYPILOT_TASK_ID", ""),
    }
    return Attempt.begin(store, about)


def _prepare(recipe: TrainerRecipe, store: Store, folder: Path, *, keeps: bool, progress: Any) -> tuple[Any, Any]:
    """The model before it is sharded, and the rows; with `keeps` configuration and tokenizer go into the run."""
    import torch.distributed as dist

    from train import attention, export, lora, model
    from train.rows import load_rows

    kept = model.kept(store, folder / "model", progress.say)
    tokenizer = model.load_tokenizer(recipe.model, kept)
    found = model.load_config(recipe.model, kept, len(tokenizer))
    rows = load_rows(recipe, tokenizer, store, say=progress.say)
    kernel, sentence = attention.choose(recipe.model.attention, recipe.train.precision)
    progress.say(sentence)
    fresh = export.newest(store) is None
    from_base = fresh or recipe.lora is not None  # a checkpoint of adapters has no base
    progress.say(f"loading the weights of {recipe.model.base}" if from_base else "weights come from the checkpoint")
    network = model.build(
        recipe.model,
        found,
        attention=kernel,
        weights=from_base and dist.get_rank() == 0,
        seed=recipe.train.seed,
    )
    found.architectures = [type(network).__name__]
    if recipe.lora is not None:
        network = lora.adapted(network, recipe.lora, seed=recipe.train.seed, low=recipe.train.precision == "bf16")
    if keeps and kept is None:
        model.keep(store, found, tokenizer)
    for quicker in model.quicken(network, recipe.train):
        progress.say(quicker)
    return network, rows


def _expected_life(recipe: TrainerRecipe, store: Store, attempt: int) -> float:
    """Of this machine, in seconds: what the plan or the recipe says, and how long this run's earlier ones lasted."""
    from checkpoints.cadence import expected_life
    from checkpoints.run import lives

    prior = float(os.environ.get(MACHINE_LIFE) or recipe.checkpoints.machine_life_seconds)
    seen = lives(store, attempt)
    return expected_life(prior, seen, len(seen))


def _finish(recipe: TrainerRecipe, store: Store, attempt: Any, folder: Path, progress: Any) -> int:
    """Rank 0: the export, and the answer the recipe asks for."""
    from train import export, model

    done = export.export_run(store, store, prefix=export.PREFIX, scratch=folder / "export", say=progress.say)
    progress.say(f"exported {done.size / 1e6:,.0f} MB of weights to {store.uri}/{export.PREFIX}")
    answer = ""
    if recipe.train.ask:
        exported = model.fetched(store, export.PREFIX, folder / "exported")
        answer = export.answer(exported, recipe.train.ask)
        progress.say(f"asked: {recipe.train.ask}")
        progress.say(f"answered: {answer}")
    attempt.event("finished", step=done.step, export=export.PREFIX, answer=answer)
    attempt.flush()
    store.tidy()
    return FINISHED


def _read(text: str) -> TrainerRecipe:
    try:
        return read_recipe(text)
    except msgspec.DecodeError as failure:
        raise TrainError(f"The recipe in {RECIPE} cannot be used: {failure}") from failure


def _freeze(store: Store, text: str) -> None:
    """Keep the recipe beside the run; a run never goes on with another one."""
    if store.create(_RECIPE_NAME, text.encode()):
        return
    if store.read(_RECIPE_NAME) != text.encode():
        raise StoreRefused(
            f"The run at {store.uri} was begun with another recipe. Give this one a run of its own ({RUN}), or "
            "resume that one with its own recipe."
        )


def _quiet() -> None:
    """The log is a line a step: no progress bars and no libraries' small talk in between."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    sys.exit(main())
