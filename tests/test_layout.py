from hypothesis import given
from hypothesis import strategies as st

from checkpoints import layout
from checkpoints.layout import Checkpoint


def whole(step: int, attempt: int) -> list[str]:
    prefix = Checkpoint(step, attempt).prefix
    return [prefix + file for file in ("rank-00000.bin", "rank-00001.bin", "metadata.bin", layout.MANIFEST)]


def torso(step: int, attempt: int) -> list[str]:
    """Everything but the manifest."""
    return whole(step, attempt)[:-1]


def test_a_checkpoint_without_a_manifest_does_not_exist_whatever_is_in_its_folder() -> None:
    stray = ["checkpoints/00000099-0009/manifest.json.tmp", "checkpoints/99/manifest.json", "manifest.json"]
    assert layout.committed([*whole(10, 1), *torso(20, 1), *stray]) == [Checkpoint(10, 1)]


def test_what_is_newer_but_has_no_manifest_is_named() -> None:
    names = torso(5, 1) + whole(10, 1) + torso(20, 1) + torso(20, 2)
    assert layout.without_manifest(names) == [Checkpoint(20, 2), Checkpoint(20, 1)]
    assert layout.without_manifest(torso(1, 1)) == [Checkpoint(1, 1)]


def test_the_newest_is_the_one_with_the_most_steps_and_then_the_latest_attempt() -> None:
    names = whole(10, 2) + whole(20, 1) + whole(20, 3)
    assert layout.committed(names) == [Checkpoint(20, 3), Checkpoint(20, 1), Checkpoint(10, 2)]


def test_unfinished_checkpoints_of_dead_attempts_are_deletable_and_those_of_a_newer_attempt_are_not() -> None:
    names = whole(10, 1) + torso(12, 1) + torso(14, 2) + torso(16, 3)
    doomed = layout.deletable(names, keep=2, attempt=2, saving=Checkpoint(14, 2))
    assert doomed == sorted(torso(12, 1), key=lambda name: name)


def test_a_manifest_is_deleted_before_the_files_it_names() -> None:
    doomed = layout.deletable(whole(1, 1) + whole(2, 1) + whole(3, 1), keep=2, attempt=1)
    assert doomed[0] == Checkpoint(1, 1).prefix + layout.MANIFEST
    assert set(doomed) == set(whole(1, 1))


checkpoints = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5), st.booleans()), max_size=25)


@given(checkpoints, st.integers(2, 5), st.integers(1, 5))
def test_deleting_never_touches_the_newest_that_are_kept(
    found: list[tuple[int, int, bool]], keep: int, attempt: int
) -> None:
    names = [name for step, number, done in found for name in (whole if done else torso)(step, number)]
    before = layout.committed(names)
    left = set(names) - set(layout.deletable(names, keep=keep, attempt=attempt))
    after = layout.committed(left)
    assert after[:keep] == before[:keep]
    for checkpoint in after:
        assert set(whole(checkpoint.step, checkpoint.attempt)) <= left


def test_the_highest_attempt_owns_the_run() -> None:
    assert layout.newest_attempt([]) == 0
    assert layout.newest_attempt(["attempts/0002", "attempts/0010", "attempts/x"]) == 10
