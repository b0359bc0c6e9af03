"""One cluster, one API server and one bucket for all tests here; what they share is in tests/cluster/cluster.py."""

import os
from collections.abc import Iterator

import pytest

from tests import servers
from tests.cluster import slurm
from tests.cluster.cluster import Cluster
from tests.cluster.server import SkyServer, taken_ports


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Everything up, the server without our plugin; ended by process id with the session."""
    if missing := slurm.missing():
        pytest.skip(f"{', '.join(missing)} are not installed; as root: make cluster-packages")
    if taken := taken_ports():
        pytest.skip(f"a SkyPilot API server has port {taken[0]} of this machine already, and knows no other")
    root = tmp_path_factory.mktemp("cluster")
    with servers.seaweedfs(root / "weed") as bucket, pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        machines = slurm.Slurm(root)
        server = SkyServer(root, machines)
        made = Cluster(root, machines, server, servers.make_bucket(bucket, "runs"), dict(os.environ))
        try:
            machines.start()
            server.prepare()
            server.start()
            yield made
        finally:
            server.end()
            machines.stop()
