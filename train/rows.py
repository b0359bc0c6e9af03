"""The run's training rows: tokenized once by all processes together, kept in the run, read by later attempts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from checkpoints.stores import Store
from train import conversations
from train.config import TrainerRecipe
from train.data import Rows, Tokens, fingerprint, tokenize
from train.guards import same_data


def load_rows(recipe: TrainerRecipe, tokenizer: Any, store: Store, say: Callable[[str], None]) -> Rows:
    """The rows of the recipe's conversations. Raises TrainError where the file is not what it should be."""
    path = Path(recipe.data.conversations).expanduser()
    context = recipe.model.context_tokens
    messages = conversations.read(path)
    same_data(store, path, fingerprint(path))  # on every rank, so that all stop with the same sentence
    manifest = conversations.check_manifest(path)
    if manifest is not None and dist.get_rank() == 0:
        store.write("data-manifest.json", [manifest])
    key = fingerprint(path, template=tokenizer.chat_template, vocabulary=len(tokenizer), context=context)
    name = f"tokens/{key[:32]}.npz"
    # Rank 0 looks for all: another attempt of this run may be writing them at this very moment.
    there = [any(entry.name == name for entry in store.list("tokens/"))]
    dist.broadcast_object_list(there, src=0)
    if there[0]:
        tokens = Tokens.from_bytes(store.read(name))
    else:
        tokens, cut = _tokenize(messages, tokenizer, context)
        if dist.get_rank() == 0:
            store.write(name, [tokens.to_bytes()])
            if cut:
                say(f"{cut:,} of the assistant's tokens lie beyond {context} tokens and are left out")
    rows = Rows(tokens, context, seed=recipe.train.seed, pad_id=tokenizer.pad_token_id)
    say(
        f"{len(tokens):,} conversations, {len(tokens.ids):,} tokens ({int(tokens.trained.sum()):,} the "
        f"assistant's) in {len(rows.rows):,} rows of {context}"
    )
    return rows


def _tokenize(messages: list[conversations.Messages], tokenizer: Any, context: int) -> tuple[Tokens, int]:
    """Each process its share, then everyone everything, in the order of the file."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    share = -(-len(messages) // world_size)
    mine = tokenize(messages[rank * share : (rank + 1) * share], tokenizer, context)
    parts: list[tuple[Tokens, int] | None] = [None] * world_size
    dist.all_gather_object(parts, mine)
    whole = [part for part in parts if part is not None]
    return Tokens.joined([tokens for tokens, _ in whole]), sum(cut for _, cut in whole)
