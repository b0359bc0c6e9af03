import tomllib
from pathlib import Path

import pytest

from launcher import recipe
from launcher.errors import RecipeError


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_that_comes_along_reads_and_freezes_to_the_same_recipe(name: str) -> None:
    named = recipe.load(name)
    assert recipe.decode(tomllib.loads(named.text), name) == named.recipe


def test_the_published_recipe_is_what_was_published() -> None:
    for name in ("vicuna-7b", "vicuna-13b"):
        train = recipe.load(name).recipe.train
        assert (train.epochs, train.learning_rate, train.schedule) == (3.0, 2e-5, "cosine")
        assert (train.global_batch, train.warmup_fraction, train.weight_decay) == (128, 0.04, 0.0)
        assert recipe.load(name).recipe.model.context_tokens == 2048
    long = recipe.load("vicuna-7b-16k").recipe.model
    assert (long.context_tokens, long.position_interpolation) == (16384, 4.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("train.epoch=3", r"recipes/tiny.toml .*: \[train\] has no key 'epoch'. Did you mean 'epochs'\?"),
        ("trian.epochs=3", r"there is no section 'trian'. Did you mean 'train'\?"),
        ("train.epochs='three'", r"\[train\] epochs must be a number, not text."),
        ("train.global_batch=1.5", r"\[train\] global_batch must be a whole number, not a number."),
        ("train.global_batch=0", r"\[train\] global_batch is 0; it must be at least 1."),
        ("train.learning_rate=-1", r"\[train\] learning_rate is -1; it must be above 0."),
        ("train.warmup_fraction=1.0", r"\[train\] warmup_fraction is 1; it must be from 0 to under 1."),
        ("model.template=vicunna", r"\[model\] template is 'vicunna'; it must be one of tokenizer, vicuna, chatml"),
        ("model.context_tokens=4096", r"context_tokens is 4096, more than the 512 that tiny reaches; set position_"),
        ("checkpoints.keep=1", r"\[checkpoints\] keep is 1; at least 2"),
        ("local.zones=[{nam='a'}]", r"\[local.zones\[0\]\] has no key 'nam'. Did you mean 'name'\?"),
        ("machine.accelerators=['A100:x']", r"\[machine\] accelerators has 'A100:x'; write NAME:COUNT"),
        ("epochs=3", r"--set epochs=3: write section.key=value"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_said_with_section_and_key(change: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        recipe.load("tiny", [change])


def test_an_unknown_recipe_names_its_neighbour() -> None:
    with pytest.raises(RecipeError, match=r"There is no recipe 'vicuna7b'. Did you mean 'vicuna-7b'\?"):
        recipe.load("vicuna7b")


def test_a_recipe_at_a_path_names_the_file_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nbase = tiny\n")
    with pytest.raises(RecipeError, match=r"mine.toml is not TOML: .*line 2"):
        recipe.load(str(path))
    path.write_text("[model]\nbase = 'tiny'\n")
    with pytest.raises(RecipeError, match=r"mine.toml: \[model\] lacks the key 'parameters'"):
        recipe.load(str(path))
    with pytest.raises(RecipeError, match="There is no recipe at"):
        recipe.load(str(tmp_path / "other.toml"))


def test_set_changes_what_is_frozen() -> None:
    named = recipe.load("tiny", ["train.epochs=1", "data.conversations=my chats.json", "model.template=vicuna"])
    assert named.recipe.train.epochs == 1
    assert named.recipe.data.conversations == "my chats.json"
    frozen = tomllib.loads(named.text)
    assert frozen["model"]["template"] == "vicuna"
    assert recipe.load("tiny").text != named.text
