"""S3 and Google Cloud Storage, by real servers on this machine, as they are and through a proxy that fails."""

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator

import pytest

from checkpoints.stores import Store, StoreError, Transfer, open_store
from tests import servers
from tests.fault_proxy import FAULTS, FaultProxy, always, once
from tests.servers import Server

PATIENCE = Transfer(idle_seconds=4, retry_seconds=170)
MEGABYTE = 1 << 20
BIG = 20
"""Megabytes of an object that travels in several parts."""
data = os.urandom(BIG * MEGABYTE)


def pieces(count: int = BIG) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[each * MEGABYTE : (each + 1) * MEGABYTE] for each in range(count))


@pytest.fixture(params=["s3", "gs"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    found: Server = request.getfixturevalue({"s3": "s3_server", "gs": "gcs_server"}[request.param])
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def store(server: Server) -> Store:
    return open_store(servers.make_bucket(server, "contract")).inside(uuid.uuid4().hex)


def test_what_is_written_is_read_back_whole_or_in_part(store: Store) -> None:
    assert store.write("a/big", pieces()) == len(data)
    assert store.write("a/small", [b"0123", memoryview(b"456789")]) == 10
    assert store.write("a/empty", []) == 0
    assert store.read("a/big") == data
    assert store.read("a/big", len(data) - 5, 100) == data[-5:]
    assert store.part("a/big", MEGABYTE - 1, 3) == data[MEGABYTE - 1 : MEGABYTE + 2]
    assert store.read("a/small", 3, 4) == b"3456"
    assert store.read("a/small", 8) == b"89"
    assert store.read("a/small", 10, 4) == b""
    assert store.read("a/empty") == b""
    with pytest.raises(FileNotFoundError):
        store.read("a/none")
    sizes = {entry.name: entry.size for entry in store.list("a/")}
    assert sizes == {"a/big": len(data), "a/small": 10, "a/empty": 0}
    assert [entry.name for entry in store.inside("a").list("s")] == ["small"]


WRITES_ONE_TENSOR = """
import sys
from checkpoints.stores import Transfer, open_store

def status(key):
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith(key))

store = open_store(sys.argv[1], Transfer(memory_mb=64))
tensor = memoryview(bytearray(128 << 20))
tensor[::4096] = bytes(len(tensor) // 4096)  # its memory is there before it is measured
store.write("warm", [tensor[: 20 << 20]])
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = status("VmRSS")
assert store.write("x", [tensor]) == len(tensor)
print(status("VmHWM") - before)
"""


def test_of_one_large_tensor_no_more_is_held_than_the_limit(server: Server) -> None:
    uri = f"{servers.make_bucket(server, 'contract')}/{uuid.uuid4().hex}"
    done = subprocess.run([sys.executable, "-c", WRITES_ONE_TENSOR, uri], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64


def test_of_many_who_create_at_once_exactly_one_does(store: Store) -> None:
    done: list[tuple[bool, int]] = []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        start.wait()
        done.append((store.create("attempts/0001", str(number).encode()), number))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for created, number in done if created]
    assert len(winners) == 1
    assert store.read("attempts/0001") == str(winners[0]).encode()


def test_a_writer_that_breaks_off_leaves_nothing_to_be_seen(store: Store) -> None:
    def broken() -> Iterator[memoryview]:
        yield from pieces()
        raise RuntimeError("the machine is gone")

    store.write("x", [b"before"])
    with pytest.raises(RuntimeError, match="the machine is gone"):
        store.write("x", broken())
    assert store.read("x") == b"before"


def test_what_is_deleted_is_gone_and_what_is_gone_already_is_no_error(store: Store) -> None:
    store.create("a/b", b"1")
    store.delete(["a/b", "a/b", "never/was"])
    assert list(store.list()) == []
    assert store.create("a/b", b"2")


def test_an_older_writer_whose_parts_were_tidied_away_is_told_that_the_run_has_a_new_owner(
    s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(servers.make_bucket(s3_server, "tidied"), Transfer(memory_mb=32)).inside("run")
    heir = open_store("s3://tidied").inside("run")

    def slow() -> Iterator[memoryview]:
        yield from pieces()
        heir.tidy()
        yield from pieces()

    with pytest.raises(StoreError, match="were removed while it was written; the run has a new owner"):
        store.write("checkpoints/x", slow())
    assert list(store.list()) == []


# What each request does, and the pattern by which the proxy knows it.
S3_REQUESTS: dict[str, tuple[str, str, Callable[[Store], object], object]] = {
    "create": ("PUT", "/new", lambda store: store.create("new", b"x"), True),
    "small write": ("PUT", "/small", lambda store: store.write("small", [b"x"]), 1),
    "begin of parts": ("POST", r"/big\?uploads", lambda store: store.write("big", pieces()), len(data)),
    "part": ("PUT", "/big.*partNumber=2", lambda store: store.write("big", pieces()), len(data)),
    "end of parts": ("POST", r"/big\?uploadId", lambda store: store.write("big", pieces()), len(data)),
    "read": ("GET", "/there", lambda store: store.read("there", 5, 1000), data[5:1005]),
    "list": ("GET", "list-type", lambda store: [entry.name for entry in store.list()], ["there"]),
    "delete": ("DELETE", "/there", lambda store: store.delete(["there"]), None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_s3_does_what_is_asked_in_spite_of_any_one_fault(s3: FaultProxy, fault: str) -> None:
    for request, (method, path, ask, answer) in S3_REQUESTS.items():
        if fault == "stall" and request not in ("create", "read"):
            continue  # the same clients and the same clocks
        store = open_store("s3://faults", PATIENCE).inside(uuid.uuid4().hex)
        store.write("there", [data[:MEGABYTE]])
        s3.done.clear()
        s3.plan = once(fault, method, path)
        assert ask(store) == answer, f"{fault} in {request}"
        assert s3.done == [fault], f"{fault} in {request} did not happen"
        if request in ("create", "part", "end of parts"):
            name = path.partition("/")[2].split(".")[0].split("\\")[0]
            assert store.read(name) == (b"x" if name == "new" else data)


@pytest.mark.parametrize("fault", FAULTS)
def test_gcs_does_what_is_asked_in_spite_of_any_one_fault(gcs: FaultProxy, fault: str) -> None:
    requests: dict[str, tuple[str, str, Callable[[Store], object], object]] = {
        "create": ("POST", "upload", lambda store: store.create("new", b"x"), True),
        "begin": ("POST", "upload", lambda store: store.write("small", [b"x"]), 1),
        "small write": ("PUT", "upload", lambda store: store.write("small", [b"x"]), 1),
        "read": ("GET", "there", lambda store: store.read("there", 5, 1000), data[5:1005]),
        "list": ("GET", "prefix", lambda store: [entry.name for entry in store.list()], ["there"]),
        "delete": ("DELETE", "there", lambda store: store.delete(["there"]), None),
    }
    if fault not in ("lost_answer", "stall"):  # the server here appends a part that is sent twice; Google does not
        requests["part"] = ("PUT", "upload", lambda store: store.write("big", pieces()), len(data))
    for request, (method, path, ask, answer) in requests.items():
        if fault == "stall" and request not in ("create", "read"):
            continue
        store = open_store("gs://faults", PATIENCE).inside(uuid.uuid4().hex)
        store.write("there", [data[:MEGABYTE]])
        gcs.done.clear()
        gcs.plan = once(fault, method, path)
        assert ask(store) == answer, f"{fault} in {request}"
        assert gcs.done == [fault], f"{fault} in {request} did not happen"


def test_whoever_was_first_is_not_taken_for_oneself(s3: FaultProxy) -> None:
    store = open_store("s3://faults", PATIENCE).inside(uuid.uuid4().hex)
    store.create("new", b"same")
    s3.plan = once("error", "PUT", "/new")
    assert store.create("new", b"same") is False


@pytest.mark.parametrize("scheme", ["s3", "gs"])
@pytest.mark.parametrize("big", [False, True], ids=["small", "in parts"])
def test_a_bit_that_flips_on_the_way_up_is_noticed_and_nothing_is_kept(
    request: pytest.FixtureRequest, scheme: str, big: bool
) -> None:
    proxy: FaultProxy = request.getfixturevalue({"s3": "s3", "gs": "gcs"}[scheme])
    store = open_store(f"{scheme}://faults", PATIENCE).inside(uuid.uuid4().hex)
    proxy.plan = once("flip_request", "PUT", "partNumber=2|upload_id" if big else "/x|upload_id")
    with pytest.raises(StoreError, match="what arrived is not what was sent"):
        store.write("x", pieces() if big else [b"hello"])
    assert proxy.done == ["flip_request"]
    if scheme == "s3":
        assert list(store.list()) == []


@pytest.mark.parametrize("answer", ["refuse 200 OK", "refuse 400 InvalidRequest"])
def test_a_server_that_keeps_a_byte_with_a_wrong_checksum_or_does_not_know_it_is_given_sha256(
    s3: FaultProxy, answer: str
) -> None:
    store = open_store("s3://faults", PATIENCE).inside(uuid.uuid4().hex)
    left = ["flip_request"]

    def plan(method: str, path: str) -> str:
        if method == "PUT" and ".probe" in path:
            return answer
        return left.pop() if left and "partNumber=2" in path else ""

    s3.plan = plan
    with pytest.raises(StoreError, match="what arrived is not what was sent"):
        store.write("x", pieces())
    assert store.write("x", pieces()) == len(data)
    assert s3.done == [answer, "flip_request"]  # asked once
    assert store.read("x") == data
    assert [entry.name for entry in store.list()] == ["x"]


def test_a_store_that_only_fails_is_given_up_with_a_sentence(s3: FaultProxy) -> None:
    store = open_store("s3://faults", Transfer(idle_seconds=2, retry_seconds=3)).inside(uuid.uuid4().hex)
    s3.plan = always("error", "POST", "uploads")
    with pytest.raises(StoreError, match=r"could not be written \(x\): it answered InternalError, again and again"):
        store.write("x", pieces())
