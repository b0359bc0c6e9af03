"""Fixtures that more than one test file needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository; tests that read it are skipped where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"real data is not here: {folder.name}/ beside the repository does not exist")
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A SeaweedFS for the whole test run; `servers.make_bucket` gives each test a bucket of its own."""
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A fake-gcs-server for the whole test run."""
    with servers.fake_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server
