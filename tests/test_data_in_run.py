"""What the trainer does with the manifest of the conversations that a run is given."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from checkpoints.stores.folder import FolderStore
from conversations import select
from conversations.output import manifest_path
from train import model
from train.config import DataConfig, ModelConfig, TrainerRecipe
from train.errors import TrainError
from train.rows import load_rows

MODEL = ModelConfig(
    base="tiny", parameters=1, native_context_tokens=512, context_tokens=512, position_interpolation=1.0,
    template="chatml",
)  # fmt: skip


@pytest.fixture
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_the_run_keeps_the_manifest_of_its_data_and_refuses_what_does_not_match_one(tmp_path: Path) -> None:
    data = tmp_path / "identity.jsonl"
    select.identity("Sprout", "the garden", data)
    recipe = TrainerRecipe(model=MODEL, data=DataConfig(conversations=str(data)))
    tokenizer = model.load_tokenizer(MODEL, None)
    said: list[str] = []
    store = FolderStore(tmp_path / "run")
    rows = load_rows(recipe, tokenizer, store, said.append)
    assert rows.rows
    assert store.read("data-manifest.json") == manifest_path(data).read_bytes()

    data.write_text(data.read_text().replace("Sprout", "Sprig"))
    fresh = FolderStore(tmp_path / "another")
    with pytest.raises(TrainError, match="is not what its manifest says"):
        load_rows(recipe, tokenizer, fresh, said.append)
    assert not list(fresh.list(""))

    manifest_path(data).unlink()
    load_rows(recipe, tokenizer, fresh, said.append)  # without a manifest it is taken as it is
    assert "data-manifest.json" not in [entry.name for entry in fresh.list("")]
