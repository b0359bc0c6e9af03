"""A checkpoint as a Hugging Face folder: of a run with adapters, by the command, with less memory than the model."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from checkpoints import layout
from checkpoints.layout import Checkpoint
from checkpoints.saver import Saver
from checkpoints.stores import StoreRefused
from checkpoints.stores.folder import FolderStore
from launcher.cli.export import export as command
from tests.attempts import ROOT, Run
from train import export, lora, model
from train.config import INTERRUPTED, ModelConfig, read_recipe
from train.errors import TrainError
from train.weights import Checkpointed

ADAPTERS = ("lora.rank=4", "lora.dropout=0.1", "train.max_steps=8", "checkpoints.keep=4")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("undisturbed"), *ADAPTERS)
    code, said = run.attempt(2)
    assert code == 0, said
    return run


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    state: dict[str, torch.Tensor] = network.state_dict()
    return state


def test_a_run_with_adapters_resumes_bit_for_bit_dropout_included(undisturbed: Run, tmp_path: Path) -> None:
    run = Run(tmp_path, *ADAPTERS)
    code, said = run.attempt(2, leave_after=4)
    assert code == INTERRUPTED, said
    code, said = run.attempt(2)
    assert code == 0, said
    assert "resumed from the checkpoint of step" in said
    assert run.losses() == undisturbed.losses()
    assert run.exported() == undisturbed.exported()


def test_a_checkpoint_of_adapters_carries_what_is_trained_and_its_optimizer_alone(undisturbed: Run) -> None:
    store = FolderStore(undisturbed.store)
    checkpoint = export.newest(store)
    assert checkpoint is not None
    held = Checkpointed(store, checkpoint).shapes
    assert held
    assert all(".lora_" in name for name in held)
    numbers = 3 * 4 * sum(shape.numel() for shape in held.values())  # weights and two moments, fp32
    files = sum(entry.size for entry in store.list(checkpoint.prefix) if "rank-" in entry.name)
    assert numbers <= files < 1.3 * numbers  # each of them has a counter of steps, pickled


def test_the_export_is_the_base_with_the_adapters_merged_as_peft_merges_them(undisturbed: Run) -> None:
    store = FolderStore(undisturbed.store)
    recipe = read_recipe((undisturbed.store / "recipe.toml").read_text())
    assert recipe.lora is not None
    config = AutoConfig.from_pretrained(undisturbed.store / "model")
    base = model.build(recipe.model, config, attention="sdpa", weights=True, seed=recipe.train.seed)
    plain = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    network = lora.adapted(base, recipe.lora, seed=0, low=False)
    checkpoint = export.newest(store)
    assert checkpoint is not None
    held = Checkpointed(store, checkpoint)
    network.load_state_dict({name: held.read(name) for name in held.shapes}, strict=False)
    for module in network.modules():
        if hasattr(module, "merge"):
            module.merge()
    merged = {name.replace(".base_layer", ""): t for name, t in network.state_dict().items() if ".lora_" not in name}
    exported = loaded(undisturbed.store / "export")
    assert set(exported) == set(merged)
    for name, tensor in merged.items():
        torch.testing.assert_close(exported[name], tensor.bfloat16(), rtol=1e-2, atol=1e-6)
    assert any(not torch.equal(exported[name], plain[name].bfloat16()) for name in exported)


def exported_by_command(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "train.export", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_exports_any_committed_step_and_verifies_it(undisturbed: Run, tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [str(undisturbed.store), "--out", str(tmp_path / "newest"), "--json"])
    assert done.exit_code == 0, done.output
    written = msgspec.json.decode(done.output)
    assert (written["step"], written["files"]) == (8, 1)
    assert (tmp_path / "newest" / "model.safetensors").read_bytes() == undisturbed.exported()
    assert not [path.name for path in (tmp_path / "newest").iterdir() if path.name.startswith(".")]
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "newest")
    assert "generation %}" not in tokenizer.chat_template


def test_what_cannot_be_exported_is_a_sentence(undisturbed: Run, tmp_path: Path) -> None:
    store = FolderStore(undisturbed.store)

    def exported(step: int | None) -> export.Exported:
        return export.export_run(store, FolderStore(tmp_path / "out"), scratch=tmp_path, say=print, step=step)

    with pytest.raises(TrainError, match=r"has no checkpoint of step 77; it has those of 8"):
        exported(77)
    with pytest.raises(TrainError, match=r"There is no run at .*nowhere: it has no recipe\.toml"):
        export.export_run(FolderStore(tmp_path / "nowhere"), store, scratch=tmp_path, say=print)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    code, _, said = exported_by_command(str(undisturbed.store), "--out", str(tmp_path / "full"))
    assert code == 1
    assert said == f"vlaunch: {tmp_path / 'full'} is not an empty folder; name another with --out.\n"


def test_a_folder_that_lacks_a_tensor_or_has_broken_numbers_does_not_pass(undisturbed: Run, tmp_path: Path) -> None:
    from safetensors.torch import load, save

    for path in (undisturbed.store / "export").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    export.verify(tmp_path)
    tensors = load(undisturbed.exported())
    name = min(tensors)
    (tmp_path / "model.safetensors").write_bytes(save({k: v for k, v in tensors.items() if k != name}))
    with pytest.raises(TrainError, match=f"lacks {name}"):
        export.verify(tmp_path)
    tensors[name][0, 0] = float("nan")
    (tmp_path / "model.safetensors").write_bytes(save(tensors))
    with pytest.raises(TrainError, match=f"numbers in {name} that are not finite"):
        export.verify(tmp_path)


@pytest.fixture
def group() -> Iterator[torch.distributed.ProcessGroup]:
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    yield torch.distributed.group.WORLD
    torch.distributed.destroy_process_group()


def saved_run(folder: Path, group: torch.distributed.ProcessGroup, layers: int) -> tuple[Path, LlamaForCausalLM]:
    """A run with one checkpoint of a model of 4K tokens stretched to 16K."""
    recipe = ModelConfig(
        base="tiny", parameters=1, native_context_tokens=4096, context_tokens=16384, position_interpolation=4.0,
        template="chatml",
    )  # fmt: skip
    tokenizer = model.load_tokenizer(recipe, None)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=768, intermediate_size=2048, num_hidden_layers=layers,
        num_attention_heads=12, max_position_embeddings=4096,
    )  # fmt: skip
    network = LlamaForCausalLM(model.stretched(config, recipe))
    store = FolderStore(folder)
    store.create("recipe.toml", Run(folder).environment["VLAUNCH_RECIPE"].encode())
    model.keep(store, network.config, tokenizer)
    saver = Saver(store, 1, group=group, recipe_sha256="r")
    saver.start(lambda: {"model": network.state_dict()}, step=5, tokens_seen=0)
    save = saver.collect()
    assert save is not None
    assert save.failure is None
    return folder, network


def most_memory(folder: Path, out: Path) -> int:
    """Bytes of memory that the exporting process held at most."""
    process = subprocess.Popen([sys.executable, "-m", "train.export", str(folder), "--out", str(out)], cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss * 1024


def test_it_takes_less_memory_than_the_model_and_any_loader_agrees_on_the_context(
    tmp_path: Path, group: torch.distributed.ProcessGroup
) -> None:
    small, _ = saved_run(tmp_path / "small", group, layers=1)
    large, network = saved_run(tmp_path / "large", group, layers=8)
    size = 2 * sum(parameter.numel() for parameter in network.parameters())  # in bf16
    more = most_memory(large, tmp_path / "large-out") - most_memory(small, tmp_path / "small-out")
    assert more < size / 2
    found = AutoConfig.from_pretrained(tmp_path / "large-out")
    assert found.max_position_embeddings == 16384
    assert (found.rope_parameters["rope_type"], found.rope_parameters["factor"]) == ("linear", 4.0)
    state = loaded(tmp_path / "large-out")
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor.bfloat16())


def test_weights_of_several_files_load_as_one_model(
    tmp_path: Path, group: torch.distributed.ProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = saved_run(tmp_path / "run", group, layers=1)
    monkeypatch.setattr(export, "FILE_BYTES", 6 << 20)
    done = export.export_run(FolderStore(folder), FolderStore(tmp_path / "out"), scratch=tmp_path, say=print)
    assert done.files == len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    state = loaded(tmp_path / "out")
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor.bfloat16())


TINY_MODEL = ModelConfig(base="tiny", parameters=1, native_context_tokens=64, context_tokens=64, template="chatml")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "complete"])
@pytest.mark.parametrize("damage", ["a flipped bit", "missing"])
def test_what_a_run_keeps_of_its_model_is_not_used_where_it_is_damaged(tmp_path: Path, file: str, damage: str) -> None:
    store, said = FolderStore(tmp_path / "run"), list[str]()
    tokenizer = model.load_tokenizer(TINY_MODEL, None)
    model.keep(store, LlamaConfig(vocab_size=len(tokenizer)), tokenizer)
    assert model.kept(store, tmp_path / "whole", said.append) == tmp_path / "whole"
    path = store.root / "model" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink() if damage == "missing" else path.write_bytes(data)
    assert model.kept(store, tmp_path / "damaged", said.append) is None
    if (file, damage) != ("complete", "missing"):  # then it was never written whole
        assert len(said) == 1
        assert said[0].endswith("damaged: what the run keeps of its model is not used")


def test_a_run_whose_kept_model_is_damaged_goes_on_with_its_base(undisturbed: Run, tmp_path: Path) -> None:
    run = Run(tmp_path, *ADAPTERS)
    shutil.copytree(undisturbed.store, run.store)
    path = run.store / "model" / "config.json"
    path.write_text(path.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    code, said = run.attempt(1)
    assert code == 0, said
    assert "model/config.json is missing or damaged" in said
    assert "resumed from the checkpoint of step 8/8" in said
    assert run.exported() == undisturbed.exported()
    assert path.read_bytes() == (undisturbed.store / "model" / "config.json").read_bytes()


class Watching(FolderStore):
    """Notes what protects the checkpoint whose bytes are read."""

    def __init__(self, root: Path, *, refuses: bool = False) -> None:
        super().__init__(root)
        self.refuses = refuses
        self.marked: set[bool] = set()

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.endswith(".bin"):
            marks = layout.being_read(entry.name for entry in self.list("readers/"))
            self.marked.add(Checkpoint(5, 1) in marks.values())
        return super().read(name, offset, length)

    def create(self, name: str, data: bytes) -> bool:
        if self.refuses:
            raise StoreRefused("the credentials do not allow it.")
        return super().create(name, data)


def test_what_is_exported_is_marked_as_being_read_where_that_is_allowed(
    tmp_path: Path, group: torch.distributed.ProcessGroup
) -> None:
    folder, _ = saved_run(tmp_path / "run", group, layers=1)
    said: list[str] = []
    for refuses in (False, True):
        store = Watching(folder, refuses=refuses)
        done = export.export_run(store, FolderStore(tmp_path / "out"), scratch=tmp_path, say=said.append)
        assert (done.step, store.marked) == (5, {not refuses})
        assert list(store.list("readers/")) == []
    assert said == [
        "a run that goes on may delete checkpoints/00000005-0001 while it is read: the credentials do not allow it."
    ]


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path, group: torch.distributed.ProcessGroup) -> None:
    folder, network = saved_run(tmp_path / "run", group, layers=1)
    saver = Saver(FolderStore(folder), 1, group=group, recipe_sha256="r")
    saver.start(lambda: {"model": network.state_dict()}, step=9, tokens_seen=0)
    saver.collect()
    path = folder / Checkpoint(9, 1).prefix / "rank-00000.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    said: list[str] = []
    done = export.export_run(FolderStore(folder), FolderStore(tmp_path / "out"), scratch=tmp_path, say=said.append)
    assert done.step == 5
    assert len(said) == 1
    assert "00000009-0001 is passed over" in said[0]
