"""Chats that lie in S3 and Google Cloud Storage, by real servers on this machine."""

import gzip
import json
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner

from checkpoints.stores import open_store
from conversations.records import Reading
from conversations.schema import parse
from launcher import chats
from launcher.cli import vlaunch
from launcher.errors import VlaunchError
from tests import servers


@pytest.fixture(params=["s3", "gs"])
def uri(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix with chats in several files, and with what are none."""
    server: servers.Server = request.getfixturevalue({"s3": "s3_server", "gs": "gcs_server"}[request.param])
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    uri = f"{servers.make_bucket(server, 'chats')}/{uuid.uuid4().hex}"
    store = open_store(uri)
    lines = [
        json.dumps({"id": f"c{n}", "conversations": [
            {"from": "human", "value": f"question {n}"}, {"from": "gpt", "value": f"answer {n} is " + "long " * n}
        ]}) for n in range(60)
    ]  # fmt: skip
    files = {
        "raw/a.json": f"[{','.join(lines[:20])}]".encode(),
        "raw/deeper/b.jsonl.gz": gzip.compress("\n".join(lines[20:40]).encode()),
        "raw/c.jsonl": "\n".join([*lines[40:], '{"id": "broken", "conversations": [']).encode(),
        "raw/c.jsonl.manifest.json": b"{}",
        "raw/readme.txt": b"no chats",
        "rawer/d.jsonl": lines[0].encode(),
    }
    for name, data in files.items():
        store.write(name, [data])
    return uri


def test_chats_are_read_from_a_store_one_object_or_all_below_a_prefix(uri: str) -> None:
    def names(given: str) -> list[str]:
        return [parse(raw.data, raw.name).id for raw in Reading(chats.find([given]), 1_000_000)]

    assert [source.name for source in chats.find([f"{uri}/raw"])] == [
        f"{uri}/raw/{name}" for name in ("a.json", "c.jsonl", "deeper/b.jsonl.gz")
    ]
    assert names(f"{uri}/raw/deeper") == names(f"{uri}/raw/deeper/b.jsonl.gz") == [f"c{n}" for n in range(20, 40)]
    with pytest.raises(VlaunchError, match="There are no chats at"):
        chats.find([f"{uri}/nowhere"])


def test_cleaning_reads_a_store_and_the_manifest_names_its_objects(uri: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = CliRunner().invoke(vlaunch, ["data", "clean", f"{uri}/raw", "--out", str(out), "--processes", "1"])
    assert done.exit_code == 1
    assert "broken" in done.output
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert [(each["name"], each["records"]) for each in manifest["inputs"]] == [
        (f"{uri}/raw/a.json", 20), (f"{uri}/raw/c.jsonl", 21), (f"{uri}/raw/deeper/b.jsonl.gz", 20)
    ]  # fmt: skip
    counts = manifest["counts"]
    assert counts["records_in"] == 61 == counts["kept"] + sum(counts["merged"].values()) + 1
