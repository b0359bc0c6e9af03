"""When a save is due, and how an attempt that is no longer wanted ends."""

import threading
from pathlib import Path

import pytest

from checkpoints.cadence import Cadence, expected_life
from checkpoints.config import CheckpointConfig
from checkpoints.fence import Fence
from checkpoints.run import Attempt, lives
from checkpoints.stores.folder import FolderStore


def test_the_cadence_is_young_and_dalys_between_floor_and_ceiling() -> None:
    cadence = Cadence(CheckpointConfig(floor_seconds=30, ceiling_seconds=600), life_seconds=7200)
    assert cadence.seconds == 30
    cadence.learn(stall_seconds=0.25, seconds=10)
    assert cadence.seconds == pytest.approx(60)
    assert "saves every 60 s: training waits 0.25 s" in str(cadence)
    assert "expected to last 120 min" in str(cadence)
    cadence.learn(stall_seconds=1000, seconds=10)
    assert cadence.seconds == 600
    cadence.learn(stall_seconds=0.001, seconds=10)
    assert cadence.seconds == 30


def test_the_store_is_idle_at_least_half_of_the_time() -> None:
    cadence = Cadence(CheckpointConfig(ceiling_seconds=600), life_seconds=3600)
    cadence.learn(stall_seconds=0.1, seconds=500)
    assert cadence.seconds == 1000


def test_what_the_recipe_says_is_done() -> None:
    cadence = Cadence(CheckpointConfig(every_seconds=5), life_seconds=3600)
    cadence.learn(stall_seconds=100, seconds=100)
    assert cadence.seconds == 5
    assert str(cadence) == "saves every 5 s, as the recipe says"


def test_the_expected_life_moves_from_what_was_planned_to_what_is_seen() -> None:
    assert expected_life(3600, [], 0) == 3600
    assert expected_life(3600, [1800], 1) == 2700
    assert expected_life(3600, [600] * 50, 50) == pytest.approx(659, abs=1)


def test_how_long_earlier_attempts_lasted_is_read_from_the_signs_they_left(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.create("attempts/0001", b'{"started_at": "2026-11-25T10:00:00.000Z"}')
    store.create("events/0001-000001.json", b'{"attempt": 1, "at": "2026-11-25T10:00:01.000Z"}')
    store.create("events/0001-000002.json", b'{"attempt": 1, "at": "2026-11-25T10:05:00.000Z"}')
    store.create("attempts/0002", b'{"started_at": "2026-11-25T11:00:00.000Z"}')  # died before its first event
    store.create("attempts/0003", b'{"started_at": "2026-11-25T12:00:00.000Z"}')
    store.create("events/0003-000001.json", b'{"attempt": 3, "at": "2026-11-25T12:00:01.000Z"}')
    assert lives(store, before=3) == [300.0]


def test_a_superseded_attempt_that_does_not_stop_is_ended_and_says_so(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    mine = Attempt.begin(store, {})
    left, gone, said = list[int](), threading.Event(), list[str]()

    def leave(code: int) -> None:
        left.append(code)
        gone.set()

    fence = Fence(
        store, mine.number, exit_code=7, say=said.append, every_seconds=0.02, grace_seconds=0.02, leave=leave
    )  # fmt: skip
    with fence:
        Attempt.begin(store, {})
        assert gone.wait(60)
    assert left == [7]
    assert fence.superseded_by == 2
    assert "attempt 2 has taken over this run" in said[0]


def test_a_superseded_attempt_that_stops_by_itself_is_left_alone(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    mine = Attempt.begin(store, {})
    left: list[int] = []
    fence = Fence(store, mine.number, exit_code=7, say=print, every_seconds=0.02, grace_seconds=60, leave=left.append)
    with fence:
        Attempt.begin(store, {})
        done = threading.Event()
        while fence.superseded_by is None:
            done.wait(0.01)
    assert left == []


def test_by_default_it_is_over_within_a_minute() -> None:
    fence = Fence(FolderStore(Path("nowhere")), 1, exit_code=1, say=print)
    assert fence._every_seconds + fence._grace_seconds < 50
