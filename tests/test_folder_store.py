import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoints.stores import StoreError, StoreFull, StoreRefused, open_store
from checkpoints.stores.folder import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_what_is_written_is_read_back_whole_or_in_part(store: FolderStore) -> None:
    assert store.write("a/b.bin", [b"0123", memoryview(b"456789")]) == 10
    assert store.read("a/b.bin") == b"0123456789"
    assert store.read("a/b.bin", 3, 4) == b"3456"
    assert store.read("a/b.bin", 8, 4) == b"89"
    with pytest.raises(FileNotFoundError):
        store.read("a/c.bin")


def test_a_writer_that_breaks_off_leaves_nothing_to_be_seen(store: FolderStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the machine is gone")

    store.write("x", [b"before"])
    with pytest.raises(RuntimeError):
        store.write("x", broken())
    assert store.read("x") == b"before"
    assert [entry.name for entry in store.list()] == ["x"]


def test_what_a_killed_writer_left_is_never_listed_and_is_tidied(store: FolderStore) -> None:
    def stuck() -> Iterator[bytes]:
        yield b"half"
        assert list(store.list()) == []
        assert list((store.root / ".partial").iterdir()) != []
        store.tidy()  # the next attempt, while this writer is thought dead
        yield b"the rest"

    with pytest.raises(StoreError, match="new owner"):
        store.write("x", stuck())
    assert list(store.list()) == []


def test_of_many_who_create_at_once_exactly_one_does(store: FolderStore) -> None:
    done: list[bool] = []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        start.wait()
        done.append(store.create("attempts/0001", str(number).encode()))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False] * 7 + [True]


def test_a_listing_is_of_a_prefix_of_names(store: FolderStore) -> None:
    for name in ("events/0001", "events/0002", "eventful", "other/1"):
        store.create(name, b"..")
    assert sorted(entry.name for entry in store.list("events/")) == ["events/0001", "events/0002"]
    assert sorted(entry.name for entry in store.list("event")) == ["eventful", "events/0001", "events/0002"]
    assert list(store.list("nothing/")) == []
    assert [entry.name for entry in store.inside("events").list()] == ["0001", "0002"]


def test_deleting_takes_empty_folders_along_and_what_is_gone_already_is_no_error(store: FolderStore) -> None:
    store.create("a/b/c", b"1")
    store.delete(["a/b/c", "a/b/c", "never/was"])
    assert not (store.root / "a" / "b").exists()


def test_names_cannot_leave_the_store(store: FolderStore) -> None:
    with pytest.raises(ValueError, match="leaves the store"):
        store.read("../secret")


def test_a_store_in_a_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreRefused, match=r"file could not be written \(x\): a file is in the way. Choose a folder"):
        open_store(str(tmp_path / "file")).create("x", b"")


def test_an_unknown_scheme_is_refused_with_a_sentence() -> None:
    with pytest.raises(StoreRefused, match="There is no store for ftp://"):
        open_store("ftp://host/path")


def test_a_full_disk_is_a_sentence_and_what_was_there_stays(small_disk: Path) -> None:
    store = FolderStore(small_disk / "store")
    store.write("committed", [b"x" * 100_000])
    with pytest.raises(StoreFull, match="no space is left on its disk"):
        store.write("big", [b"x" * 100_000] * 20)
    assert [entry.name for entry in store.list()] == ["committed"]
    store.write("small", [b"x" * 100_000])  # the torso of the big one was removed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine does not let us mount: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)
