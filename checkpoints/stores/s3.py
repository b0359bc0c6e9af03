"""A store in an S3 bucket, Amazon's or any other that speaks S3: boto3 for what is small or conditional, obstore for
bulk. Endpoint, credentials and region come from where AWS's own tools take them (AWS_ENDPOINT_URL, profiles, the
machine's role). Knows nothing of checkpoints.
"""

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

import botocore.exceptions
import obstore
import stamina
from obstore.exceptions import BaseError

from checkpoints.stores import s3_errors
from checkpoints.stores.protocol import Entry, StoreError, Transfer
from checkpoints.stores.s3_clients import Clients

_PART_BYTES = 16 << 20
"""S3 takes at most 10,000 parts: 160 GB an object."""
_MOST_PARTS_AT_ONCE = 6
_WRITER = "writer"
"""Metadata of every object: a random token of the call that wrote it, so that it knows its own work again when the
answer was lost."""


class S3Store:
    """Objects below `prefix` of a bucket."""

    def __init__(self, bucket: str, prefix: str, transfer: Transfer, clients: Clients | None = None) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self.transfer = transfer
        with self._failing("opened"):
            self._clients = clients or Clients(bucket, transfer)
        self._s3 = self._clients.client

    def inside(self, prefix: str) -> "S3Store":
        return S3Store(self.bucket, f"{self.prefix}{prefix.strip('/')}/", self.transfer, self._clients)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        with self._failing("listed"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(prefix))
            for page in pages:
                for found in page.get("Contents", ()):
                    yield Entry(found["Key"].removeprefix(self.prefix), found["Size"])

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return bytes(self.part(name, offset, length))

    def part(self, name: str, offset: int = 0, length: int | None = None) -> memoryview:
        if length == 0:
            return memoryview(b"")
        with self._failing(f"read ({name})"):
            bulk, key = self._clients.reader, self._key(name)
            try:
                # obstore tries again until the answer begins; an answer that breaks off is for us to repeat.
                for again in stamina.retry_context(
                    on=s3_errors.broke_off, attempts=6, timeout=self.transfer.retry_seconds
                ):
                    with again:
                        if length is not None:
                            return memoryview(obstore.get_range(bulk, key, start=offset, length=length))
                        whole = obstore.get(bulk, key, options={"range": {"offset": offset}} if offset else {})
                        return memoryview(whole.bytes())
            except BaseError as failure:
                if s3_errors.code(failure) in ("InvalidRange", "416"):
                    return memoryview(b"")
                raise
        raise AssertionError("unreachable")

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> int:
        source = _Source(chunks)
        with self._failing(f"written ({name})"):
            if (small := source.all_within(_PART_BYTES)) is not None:
                self._s3.put_object(Bucket=self.bucket, Key=self._key(name), Body=small, ChecksumAlgorithm="SHA256")
                return len(small)
            self._write_parts(name, source)
        return source.size

    def create(self, name: str, data: bytes) -> bool:
        token = uuid.uuid4().hex
        with self._failing(f"written ({name})"):
            try:
                for again in stamina.retry_context(
                    on=s3_errors.in_conflict, attempts=10, timeout=self.transfer.retry_seconds
                ):
                    with again:
                        self._s3.put_object(
                            Bucket=self.bucket, Key=self._key(name), Body=data, IfNoneMatch="*",
                            Metadata={_WRITER: token}, ChecksumAlgorithm="SHA256",
                        )  # fmt: skip
            except botocore.exceptions.ClientError as failure:
                if s3_errors.code(failure) not in ("PreconditionFailed", "412"):
                    raise
                # Somebody was first, or it was this very call and the answer was lost.
                return self._is_there(name, token, len(data))
        return True

    def delete(self, names: Iterable[str]) -> None:
        with self._failing("deleted from"):
            for name in names:  # one by one: a batch has no order
                self._s3.delete_object(Bucket=self.bucket, Key=self._key(name))

    def tidy(self) -> None:
        with self._failing("tidied"):
            self._abort_uploads(self.prefix)

    def place(self) -> str:
        if self._clients.custom:
            return ""
        with self._failing("looked at"):
            return f"aws/{self._clients.region}"

    def _write_parts(self, name: str, source: "_Source") -> None:
        """Several parts at once, from memory; S3 checks the checksum of each."""
        token = uuid.uuid4().hex
        at_once = max(1, min(_MOST_PARTS_AT_ONCE, (self.transfer.memory_mb << 20) // _PART_BYTES - 2))
        try:
            obstore.put(
                self._clients.writer(self._key(name)), self._key(name), iter(source),
                attributes={_WRITER: token}, use_multipart=True, chunk_size=_PART_BYTES, max_concurrency=at_once,
            )  # fmt: skip
        except Exception as failure:
            if source.failure is not None:
                self._abort_own(name)
                raise source.failure from None
            if not isinstance(failure, (BaseError, FileNotFoundError)):
                raise
            if source.ended and self._is_there(name, token, source.size):
                return  # it took effect, and only the answer was lost
            self._abort_own(name)
            if s3_errors.code(failure) == "NoSuchUpload":
                raise StoreError(
                    f"The parts of {name} in {self.uri} were removed while it was written; the run has a new owner."
                ) from None
            raise
        if not self._is_there(name, token, source.size):
            raise StoreError(
                f"{self.uri}/{name} is not what was written: another size, or another writer's. It is not used."
            )

    def _is_there(self, name: str, token: str, size: int) -> bool:
        """Whether `name` is the work of the call that had `token`, whole."""
        try:
            head = self._s3.head_object(Bucket=self.bucket, Key=self._key(name))
        except botocore.exceptions.ClientError as failure:
            if s3_errors.code(failure) in ("404", "NoSuchKey"):
                return False
            raise
        return bool(head["Metadata"].get(_WRITER) == token and head["ContentLength"] == size)

    def _abort_own(self, name: str) -> None:
        """Best effort: what stays is removed by the next attempt's `tidy`."""
        with contextlib.suppress(*s3_errors.BOTH):
            self._abort_uploads(self._key(name))

    def _abort_uploads(self, prefix: str) -> None:
        for page in self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=prefix):
            for upload in page.get("Uploads", ()):
                with contextlib.suppress(self._s3.exceptions.NoSuchUpload):
                    self._s3.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _key(self, name: str) -> str:
        if ".." in name.split("/"):
            raise ValueError(f"{name!r} leaves the store")
        return self.prefix + name

    def _failing(self, done: str) -> AbstractContextManager[None]:
        return s3_errors.failing(self.uri, done)


class _Source:
    """The chunks to be written, counted; remembers how their iteration ended."""

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self._chunks = iter(chunks)
        self._first: list[bytes | memoryview] = []
        self.size = 0
        self.ended = False
        self.failure: BaseException | None = None

    def all_within(self, limit: int) -> bytes | None:
        """Everything, where it is less than `limit`; otherwise None, and iterating gives it."""
        held = 0
        for chunk in self._chunks:
            self._first.append(chunk)
            held += memoryview(chunk).nbytes
            if held >= limit:
                return None
        return b"".join(self._first)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        try:
            while self._first:
                yield self._counted(self._first.pop(0))
            for chunk in self._chunks:
                yield self._counted(chunk)
        except GeneratorExit:
            raise  # obstore wants no more of it: the failure is on its side
        except BaseException as failure:
            self.failure = failure
            raise
        self.ended = True

    def _counted(self, chunk: bytes | memoryview) -> bytes | memoryview:
        self.size += memoryview(chunk).nbytes
        return chunk
