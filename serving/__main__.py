"""`python -m serving gateway|worker`: runs until SIGTERM; the configuration is JSON in VLAUNCH_SERVING.

`vlaunch gateway` and `vlaunch worker` become this process. In the environment and not among the arguments, so that a
worker's token is not in the list of processes.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec

from serving.config import ENVIRONMENT, GatewayConfig, WorkerConfig
from serving.errors import ServingError
from serving.logs import to_standard_error


async def gateway(config: GatewayConfig) -> None:
    from serving.gateway import Gateway
    from serving.moderation import Moderation
    from serving.page import Page
    from serving.skyserve import Counting

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running = Gateway(config)
    moderation = Moderation(config.moderation)
    running.guards.append(moderation.guard)
    counting = Counting(config.skyserve)
    running.guards.append(counting.guard)
    if config.page:
        Page(running, Path(config.page_folder) if config.page_folder else None)
    try:
        await running.start()
    except OSError as failure:
        await running.stop()
        raise ServingError(f"The gateway cannot listen on {config.host}:{config.port}: {failure.strerror}.") from None
    await stop.wait()
    await running.stop()
    await moderation.close()
    await counting.close()


async def worker(config: WorkerConfig) -> None:
    from serving.worker import Worker

    running = Worker(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.leave, "it was told to stop")
    await running.run()


def main(arguments: list[str]) -> int:
    import uvloop

    to_standard_error()
    text = os.environ.pop(ENVIRONMENT, "{}")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if arguments == ["gateway"]:
                runner.run(gateway(msgspec.json.decode(text, type=GatewayConfig)))
            elif arguments == ["worker"]:
                runner.run(worker(msgspec.json.decode(text, type=WorkerConfig)))
            else:
                print("vlaunch: write python -m serving gateway, or worker", file=sys.stderr)
                return 2
    except (ServingError, msgspec.DecodeError) as failure:
        print(f"vlaunch: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
