"""A small soak; `make soak` is the large one."""

import os
import time

import pytest

from tests import soak

SEED = int(os.environ.get("SOAK_SEED", "20261125"))


@pytest.mark.timeout(900)
def test_a_run_that_is_killed_again_and_again_loses_nothing() -> None:
    with soak.prepared(SEED) as running:
        reference = running.reference()
        running.run(reference, kills=8, takeovers=1, until=time.monotonic() + 600)
    print(f"seed {SEED}: {dict(running.kills)}, {running.takeovers}")
    assert sum(running.kills.values()) >= 8
