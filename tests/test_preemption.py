"""Notices of the clouds, from real HTTP servers that answer as theirs do."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.metadata_server import MetadataServer
from train.preemption import Notice


@pytest.fixture
def server() -> Iterator[MetadataServer]:
    with MetadataServer() as running:
        yield running


def wait_for(come: Callable[[], object]) -> float:
    """Seconds until it has come."""
    began = time.monotonic()
    while not come():
        assert time.monotonic() < began + 60, "it never came"
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("cloud", "source", "grace"),
    [
        ("aws", "AWS spot instance action", 120),
        ("gcp", "Google preemption", 30),
        ("azure", "Azure scheduled event Preempt", 40),
    ],
)
def test_a_notice_is_heard_with_the_time_that_is_left(
    server: MetadataServer, cloud: str, source: str, grace: float
) -> None:
    notice = Notice()
    with notice.watching(cloud, server.environment):
        assert notice.at is None
        assert notice.seconds_left() == float("inf")
        server.announce(grace)
        seconds = wait_for(lambda: notice.at is not None)
    print(f"{cloud}: heard {seconds:.2f} s after the announcement")
    assert notice.source == source
    assert 0 < notice.seconds_left() <= grace


def test_a_rebalance_recommendation_is_a_warning_once_and_not_a_reason_to_leave(server: MetadataServer) -> None:
    notice = Notice()
    with notice.watching("aws", server.environment):
        server.rebalance = True
        wait_for(notice.take_warning)
        assert not notice.take_warning()
        assert notice.at is None


def test_where_nobody_answers_training_goes_on() -> None:
    notice = Notice()
    with notice.watching("aws", {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9"}):
        assert notice.at is None


def test_sigterm_is_a_notice_with_the_grace_that_torchrun_gives() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        notice = Notice(grace_seconds=110)
        notice.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: notice.at is not None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert notice.source == "SIGTERM"
    assert 100 < notice.seconds_left() <= 110


def test_the_first_to_speak_is_named_and_the_earliest_end_counts() -> None:
    notice = Notice()
    notice.told("AWS spot instance action", 120)
    notice.told("SIGTERM", 5)
    assert notice.source == "AWS spot instance action"
    assert notice.seconds_left() <= 5
