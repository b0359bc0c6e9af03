"""What is different about SkyPilot on the test cluster. Python runs this at the start of every process that has this
folder on its path; a plugin would do for the server, but SkyServe's controllers load none. Every line is here because
of the machine, not because of what is tested; docs/skypilot.md says the same.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def _network(backend_utils: Any) -> None:
    # Before SkyPilot calls a machine lost it asks two public addresses whether the network is there. Nothing here may
    # leave the machine; the API server itself answers.
    backend_utils._TEST_IP_LIST = ["http://127.0.0.1:46580/api/health"]
    # The server forks a worker while another of its threads imports this, and the worker is left with half of it (seen:
    # "module 'networkx' has no attribute 'topological_generations'"). On a loaded machine that is likely.
    import networkx  # noqa: F401


def _features(slurm: Any) -> None:
    # Slurm has no spot as SkyPilot sees it. Here a job of a `spot-…` partition is as preemptible as one can be. Nor
    # does it open ports; on loopback all are.
    for feature in ("SPOT_INSTANCE", "OPEN_PORTS"):
        slurm.Slurm._CLOUD_UNSUPPORTED_FEATURES.pop(slurm.clouds.CloudImplementationFeatures[feature], None)


def _looks(utils: Any) -> None:
    # SkyPilot looks every 15 s how a job is. Machines that live for seconds are looked at more often; but on Slurm a
    # look is a new Python on the machine that loads SkyPilot, a second of CPU.
    utils.JOB_STATUS_CHECK_GAP_SECONDS = 8
    utils.JOB_STARTED_STATUS_CHECK_GAP_SECONDS = 1


_AFTER: dict[str, Callable[[Any], None]] = {
    "sky.backends.backend_utils": _network,
    "sky.clouds.slurm": _features,
    "sky.jobs.utils": _looks,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds those modules as they would be found, and has each changed once it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _AFTER:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        loader: Any = spec.loader
        load = loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            _AFTER[name](module)

        loader.exec_module = load_and_change
        return spec


sys.meta_path.insert(0, _Finder())
