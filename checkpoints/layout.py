"""The names of a run's objects in its store, and what a listing of them says: which checkpoints exist, and
what may be deleted. Pure: it never touches a store.

    <run>/recipe.toml                               the frozen recipe, written once
    <run>/data.sha256                               the conversations' hash; a run never goes on with others
    <run>/attempts/0003                             created exclusively; the highest number owns the run
    <run>/attempts/0003-leave                       whoever pays asks that attempt to save and leave
    <run>/launch.json                               how the run was launched, for another machine to find it
    <run>/controller/000017.json                    what the managed job's controller decided and had
    <run>/events/0003-000017.json                   what happened, in order
    <run>/metrics/0003-000002.jsonl                 a line a step
    <run>/tokens/<hash>.npz                         the packed training rows
    <run>/model/...                                 the model's configuration and tokenizer
    <run>/checkpoints/00000120-0003/rank-00000.bin  one file a rank, and `metadata.bin`
    <run>/checkpoints/00000120-0003/manifest.json   written last; a checkpoint without it does not exist
    <run>/readers/00000120-0003/<token>             somebody is loading that checkpoint; until the time inside
    <run>/export/...                                the Hugging Face folder
"""

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import msgspec

MANIFEST = "manifest.json"
JOURNAL = "controller/"
LAUNCH = "launch.json"
_CHECKPOINT = re.compile(r"^checkpoints/(\d{8})-(\d{4})/(.+)$")
_READER = re.compile(r"^readers/(\d{8})-(\d{4})/(.+)$")
_ATTEMPT = re.compile(r"^attempts/(\d{4})$")


class FileSum(msgspec.Struct, frozen=True, kw_only=True):
    """Size and checksums of one file of a checkpoint."""

    size: int
    digests: list[str]
    """xxh3-128 of each block of `Manifest.block_bytes`, the last one shorter; a part can be verified alone."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a committed checkpoint consists of. Its existence is the commit."""

    step: int
    attempt: int
    tokens_seen: int
    world_size: int
    recipe_sha256: str
    created_at: str
    """UTC, ISO 8601."""
    block_bytes: int
    files: dict[str, FileSum]


class Checkpoint(msgspec.Struct, frozen=True, order=True):
    """A committed checkpoint, ordered by step, then by attempt."""

    step: int
    attempt: int

    @property
    def prefix(self) -> str:
        return f"checkpoints/{self.step:08d}-{self.attempt:04d}/"


def attempt_name(number: int) -> str:
    return f"attempts/{number:04d}"


def leave_name(attempt: int) -> str:
    return f"attempts/{attempt:04d}-leave"


def journal_name(sequence: int) -> str:
    return f"{JOURNAL}{sequence:06d}.json"


def event_name(attempt: int, sequence: int) -> str:
    return f"events/{attempt:04d}-{sequence:06d}.json"


def attempt_of_event(name: str) -> int:
    """The attempt whose event it is."""
    return int(name.removeprefix("events/").partition("-")[0])


def metrics_name(attempt: int, part: int) -> str:
    return f"metrics/{attempt:04d}-{part:06d}.jsonl"


def newest_attempt(names: Iterable[str]) -> int:
    """The highest attempt number in a listing, 0 when there is none."""
    return max((int(found[1]) for name in names if (found := _ATTEMPT.match(name))), default=0)


def _by_checkpoint(names: Iterable[str]) -> dict[Checkpoint, set[str]]:
    files: dict[Checkpoint, set[str]] = {}
    for name in names:
        if found := _CHECKPOINT.match(name):
            files.setdefault(Checkpoint(int(found[1]), int(found[2])), set()).add(found[3])
    return files


def committed(names: Iterable[str]) -> list[Checkpoint]:
    """The checkpoints that exist, newest first; a folder without a manifest is not one, whatever is in it."""
    return sorted((c for c, files in _by_checkpoint(names).items() if MANIFEST in files), reverse=True)


def without_manifest(names: Iterable[str]) -> list[Checkpoint]:
    """What would be newer than the newest committed checkpoint, but has no manifest: a save that was cut short, or a
    manifest that somebody removed.
    """
    names = list(names)
    newest = max(committed(names), default=Checkpoint(0, 0))
    return sorted(
        (c for c, files in _by_checkpoint(names).items() if MANIFEST not in files and c > newest), reverse=True
    )


def deletable(
    names: Iterable[str],
    *,
    keep: int,
    attempt: int,
    saving: Checkpoint | None = None,
    damaged: Collection[Checkpoint] = (),
    loading: Collection[Checkpoint] = (),
) -> list[str]:
    """What attempt `attempt` may delete: committed checkpoints beyond the newest `keep` whole ones, and unfinished
    ones of dead attempts and its own, but for the one being saved. A checkpoint known to be `damaged` does not count
    as one of those kept. Files of a newer attempt, and of a checkpoint that somebody is `loading`, are never in the
    list.

    A manifest comes before the files it names, so that a deletion cut short leaves no committed torso.
    """
    names = list(names)
    kept = {each for each in committed(names) if each not in damaged}
    kept = set(sorted(kept, reverse=True)[:keep])
    doomed: list[str] = []
    for checkpoint, files in sorted(_by_checkpoint(names).items()):
        if checkpoint in kept or checkpoint == saving or checkpoint.attempt > attempt or checkpoint in loading:
            continue
        manifest_first = sorted(files, key=lambda name: (name != MANIFEST, name))
        doomed += [checkpoint.prefix + name for name in manifest_first]
    return doomed


def reader_name(checkpoint: Checkpoint, token: str) -> str:
    return f"readers/{checkpoint.step:08d}-{checkpoint.attempt:04d}/{token}"


def being_read(names: Iterable[str]) -> dict[str, Checkpoint]:
    """The readers' marks in a listing, each with the checkpoint it protects."""
    return {name: Checkpoint(int(found[1]), int(found[2])) for name in names if (found := _READER.match(name))}


def records(data: bytes) -> Iterator[dict[str, Any]]:
    """Those in an object of JSON lines. One that is damaged is passed over: no checkpoint hangs on it, and a run must
    not end for a word about itself."""
    for line in data.splitlines():
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            yield msgspec.json.decode(line, type=dict[str, Any])
