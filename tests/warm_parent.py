"""A warm parent for many short lives of the real trainer: it has imported everything once, and forks the
processes of an attempt on request. `python -m tests.warm_parent`, a line of JSON in, a line of JSON out.

What it stands in for is torchrun and the seconds that importing torch takes; train.__main__ runs as it is.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.distributed.checkpoint.state_dict_saver import save as _dcp

import checkpoints.fence
import checkpoints.saver
import checkpoints.stores.s3
import train.export
import train.loop
import train.model
from checkpoints.stores import Transfer, open_store
from train.__main__ import main

# Short patience: the faults here are milliseconds long, and a stall is one for whoever waits three seconds.
TRANSFER = Transfer(idle_seconds=3, retry_seconds=60)
IMPORTED = (
    _dcp,
    torch,
    train.loop,
    train.model,
    train.export,
    checkpoints.saver,
    checkpoints.fence,
    checkpoints.stores.s3,
)

# transformers imports these only when they are asked for.
LAZY = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer", "LlamaForCausalLM", "PreTrainedTokenizerFast")
WARM = [getattr(transformers, name) for name in LAZY]


def start(environment: dict[str, str], log: str) -> list[int]:
    """Fork the ranks of an attempt; their process ids."""
    pids = []
    for rank in range(int(environment["WORLD_SIZE"])):
        pid = os.fork()
        if pid == 0:
            _become(rank, environment, Path(log))
        pids.append(pid)
    return pids


def _become(rank: int, environment: dict[str, str], log: Path) -> None:
    """The child: a rank until it ends."""
    code = 70
    try:
        os.setsid()
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
        code = main(lambda uri, transfer: open_store(uri, TRANSFER))
    except BaseException:  # noqa: BLE001  a forked child must never return into its parent's loop
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(pids: list[int]) -> dict[int, int]:
    """Of these processes the ones that are over, with how: an exit code, or minus a signal."""
    codes = {}
    for pid in pids:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes


def serve() -> None:
    """Until standard input ends."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        if "environment" in request:
            answer: Any = start(request["environment"], request["log"])
        else:
            answer = ended(request["pids"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
