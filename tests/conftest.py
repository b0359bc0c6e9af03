"""Fixtures that more than one test file needs."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import servers
from tests.fault_proxy import FaultProxy
from tests.servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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


@pytest.fixture
def s3(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """S3 through a proxy; a client that is opened meanwhile goes through it."""
    with _proxied(s3_server, "AWS_ENDPOINT_URL", monkeypatch) as proxy:
        yield proxy


@pytest.fixture
def gcs(gcs_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The same for Google's."""
    with _proxied(gcs_server, "STORAGE_EMULATOR_HOST", monkeypatch) as proxy:
        yield proxy


@contextlib.contextmanager
def _proxied(server: Server, variable: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The server with a bucket `faults`, as the clients' `variable` names it."""
    with FaultProxy(server.endpoint, stall_seconds=12) as proxy:
        for name, value in {**server.environment, variable: proxy.endpoint}.items():
            monkeypatch.setenv(name, value)
        servers.make_bucket(server, "faults")
        yield proxy


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A headless Chromium, for one file's tests: playwright keeps a loop running, which other files' tests refuse."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    flags = [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update",
    ]  # fmt: skip
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield started
        started.close()
