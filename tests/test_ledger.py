import os
import threading
from pathlib import Path

import pytest

from launcher.errors import LedgerError, RunError
from launcher.ledger import Ledger
from launcher.runs import find


def test_records_come_back_in_order_by_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append("run", "a", recipe="tiny")
    ledger.append("run", "b")
    ledger.append("ended", "a", state="finished")
    assert {run: [record.kind for record in records] for run, records in ledger.runs().items()} == {
        "a": ["run", "ended"],
        "b": ["run"],
    }


def test_half_a_last_line_is_passed_over_and_counted_and_the_next_record_is_whole(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append("run", "a")
    with ledger.path.open("ab") as file:
        file.write(b'{"kind":"ended","at":"20')
    ledger.append("ended", "a", state="finished")
    assert [record.kind for record in ledger.records()] == ["run", "ended"]
    assert ledger.damaged == 1


def test_two_launchers_may_write_at_once(tmp_path: Path) -> None:
    def write(run: str) -> None:
        for _ in range(50):
            Ledger(tmp_path).append("run", run, text="x" * 3000)

    threads = [threading.Thread(target=write, args=(run,)) for run in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = Ledger(tmp_path)
    assert {run: len(records) for run, records in ledger.runs().items()} == {"a": 50, "b": 50}
    assert ledger.damaged == 0


def test_a_ledger_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(LedgerError, match=r"cannot be written: .* set VLAUNCH_HOME"):
        Ledger(tmp_path / "home").append("run", "a")


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    (tmp_path / "ledger.jsonl").symlink_to("/dev/full")
    with pytest.raises(LedgerError, match="No space left on device"):
        Ledger(tmp_path).append("run", "a")


def test_a_run_is_found_by_its_beginning_or_its_neighbour_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(RunError, match="is empty"):
        find(ledger, "tiny")
    for run in ("tiny-20261123-aaaaaa", "tiny-20261123-bbbbbb"):
        ledger.append("run", run)
    assert find(ledger, "tiny-20261123-a")[0].run_id == "tiny-20261123-aaaaaa"
    with pytest.raises(RunError, match="could be tiny-20261123-aaaaaa, tiny-20261123-bbbbbb"):
        find(ledger, "tiny")
    with pytest.raises(RunError, match=r"Did you mean tiny-20261123-aaaaaa\?"):
        find(ledger, "tiny-20261123-aaaaac")


def test_a_ledger_that_was_deleted_is_made_again_from_the_runs_own_copies_and_that_is_said(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for run in ("a", "b"):
        ledger.append("run", run, recipe="tiny")
    ledger.append("ended", "a", state="finished")
    before = dict(ledger.runs())
    ledger.path.unlink()
    again = Ledger(tmp_path)
    assert dict(again.runs()) == before
    assert again.restored == 3
    assert dict(Ledger(tmp_path).runs()) == before
    assert again.path.exists()


def test_runs_are_decoded_when_asked_for_and_a_record_of_an_unknown_kind_is_passed_over(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append("run", "a")
    with ledger.path.open("a") as file:
        file.write('{"kind": "of the future", "at": "x", "run_id": "a", "facts": {}}\n')
    runs = ledger.runs()
    assert (list(runs), len(runs), ledger.damaged) == (["a"], 1, 0)
    assert [record.kind for record in runs["a"]] == ["run"]
    assert ledger.damaged == 1
