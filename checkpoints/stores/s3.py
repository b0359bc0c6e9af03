"""A store in an S3 bucket, Amazon's or any other that speaks S3: boto3 for what is small or conditional, obstore for
bulk. Endpoint, credentials and region come from where AWS's own tools take them (AWS_ENDPOINT_URL, profiles, the
machine's role). Knows nothing of checkpoints.
"""

import contextlib
import functools
import re
import uuid
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import boto3
import botocore.exceptions
import obstore
import stamina
from botocore.config import Config
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import BaseError
from obstore.store import S3Store as BulkStore

from checkpoints.stores.protocol import Entry, StoreError, StoreFull, StoreRefused, Transfer

_PART_BYTES = 16 << 20
"""S3 takes at most 10,000 parts: 160 GB an object."""
_MOST_PARTS_AT_ONCE = 12
_WRITER = "writer"
"""Metadata of every object: a random token of the call that wrote it, so that it knows its own work again when the
answer was lost."""
_BOTH = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, BaseError)

_REFUSALS = {
    "NoSuchBucket": "there is no such bucket; create it, or correct the name",
    "InvalidAccessKeyId": "the access key is not known there; check AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY or the profile",
    "ExpiredToken": "the credentials have expired; sign in again",
    "InvalidToken": "the session token is not valid; sign in again",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it (timedatectl set-ntp true) and try again",
    "AccessDenied": "the credentials do not allow it; it takes s3:ListBucket, s3:GetObject, s3:PutObject, "
    "s3:DeleteObject and s3:AbortMultipartUpload",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION to its own",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION to its own",
    "IllegalLocationConstraintException": "the bucket is in another region; set AWS_DEFAULT_REGION to its own",
    "InvalidBucketName": "that is not a bucket's name",
}
_REFUSALS |= {"403": _REFUSALS["AccessDenied"], "301": _REFUSALS["PermanentRedirect"]}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
_DAMAGED = {"BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest", "XAmzContentChecksumMismatch", "IncompleteBody"}


class S3Store:
    """Objects below `prefix` of a bucket."""

    def __init__(self, bucket: str, prefix: str, transfer: Transfer, connection: "_Connection | None" = None) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self.transfer = transfer
        with self._failing("opened"):
            self._connection = connection or _Connection(bucket, transfer)
        self._s3 = self._connection.client

    def inside(self, prefix: str) -> "S3Store":
        return S3Store(self.bucket, f"{self.prefix}{prefix.strip('/')}/", self.transfer, self._connection)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        with self._failing("listed"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(prefix))
            for page in pages:
                for found in page.get("Contents", ()):
                    yield Entry(found["Key"].removeprefix(self.prefix), found["Size"])

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        with self._failing(f"read ({name})"):
            bulk, key = self._connection.bulk, self._key(name)
            try:
                # obstore tries again until the answer begins; an answer that breaks off is for us to repeat.
                for again in stamina.retry_context(on=_broke_off, attempts=6, timeout=self.transfer.retry_seconds):
                    with again:
                        if length is None and not offset:
                            return bytes(obstore.get(bulk, key).bytes())
                        if length is None:
                            return bytes(obstore.get(bulk, key, options={"range": {"offset": offset}}).bytes())
                        return bytes(obstore.get_range(bulk, key, start=offset, length=length))
            except BaseError as failure:
                if _code(failure) in ("InvalidRange", "416"):
                    return b""
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
                for again in stamina.retry_context(on=_in_conflict, attempts=10, timeout=self.transfer.retry_seconds):
                    with again:
                        self._s3.put_object(
                            Bucket=self.bucket, Key=self._key(name), Body=data, IfNoneMatch="*",
                            Metadata={_WRITER: token}, ChecksumAlgorithm="SHA256",
                        )  # fmt: skip
            except botocore.exceptions.ClientError as failure:
                if _code(failure) not in ("PreconditionFailed", "412"):
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
        if self._connection.custom:
            return ""
        with self._failing("looked at"):
            return f"aws/{self._connection.region}"

    def _write_parts(self, name: str, source: "_Source") -> None:
        """Several parts at once, from memory; S3 checks the SHA-256 of each."""
        token = uuid.uuid4().hex
        at_once = max(1, min(_MOST_PARTS_AT_ONCE, (self.transfer.memory_mb << 20) // _PART_BYTES - 2))
        try:
            obstore.put(
                self._connection.bulk, self._key(name), iter(source),
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
            if _code(failure) == "NoSuchUpload":
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
            if _code(failure) in ("404", "NoSuchKey"):
                return False
            raise
        return bool(head["Metadata"].get(_WRITER) == token and head["ContentLength"] == size)

    def _abort_own(self, name: str) -> None:
        """Best effort: what stays is removed by the next attempt's `tidy`."""
        with contextlib.suppress(*_BOTH):
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

    @contextlib.contextmanager
    def _failing(self, done: str) -> Iterator[None]:
        """Translate the libraries' words; a missing object stays FileNotFoundError."""
        where = f"The store {self.uri} could not be {done}"
        try:
            yield
        except FileNotFoundError as failure:
            raise _missing(failure, where) from None
        except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError):
            raise StoreRefused(
                f"{where}: there are no AWS credentials; run `aws configure`, or set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY."
            ) from None
        except botocore.exceptions.ProfileNotFound as failure:
            raise StoreRefused(f"{where}: {failure}.") from None
        except _BOTH as failure:
            raise _translated(failure, where) from None


class _Connection:
    """The two clients of one bucket, shared by every view of it."""

    def __init__(self, bucket: str, transfer: Transfer) -> None:
        self.bucket = bucket
        self.transfer = transfer
        session = boto3.Session()
        if session.get_credentials() is None:
            raise botocore.exceptions.NoCredentialsError
        region = session.region_name or "us-east-1"
        probe: Any = session.client("s3", region_name=region)
        self.custom = not re.search(r"\.amazonaws\.com(\.cn)?$", probe.meta.endpoint_url)
        self._session = session
        self.client: Any = session.client(
            "s3",
            region_name=region,
            config=Config(
                s3={"addressing_style": "path"} if self.custom else {},
                retries={"mode": "standard", "total_max_attempts": 10},
                connect_timeout=10,
                read_timeout=transfer.idle_seconds,
                max_pool_connections=32,
            ),
        )

    @functools.cached_property
    def region(self) -> str:
        """The bucket's own: boto3 follows a bucket there, others have to be told."""
        configured: str = self.client.meta.region_name
        if self.custom:
            return configured
        headers = self.client.head_bucket(Bucket=self.bucket)["ResponseMetadata"]["HTTPHeaders"]
        return str(headers.get("x-amz-bucket-region", configured))

    @functools.cached_property
    def bulk(self) -> BulkStore:
        return BulkStore(
            self.bucket,
            region=self.region,
            endpoint=self.client.meta.endpoint_url if self.custom else None,
            virtual_hosted_style_request=False,
            checksum_algorithm="SHA256",
            credential_provider=Boto3CredentialProvider(self._session),
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=10),
                "read_timeout": timedelta(seconds=self.transfer.idle_seconds),
                "timeout": timedelta(seconds=10 * self.transfer.idle_seconds),
            },
            retry_config={"max_retries": 12, "retry_timeout": timedelta(seconds=self.transfer.retry_seconds)},
        )


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


def _code(failure: BaseException) -> str:
    """S3's word for what went wrong, or the HTTP status."""
    if isinstance(failure, botocore.exceptions.ClientError):
        return str(failure.response.get("Error", {}).get("Code", ""))
    found = re.search(r"<Code>(\w+)</Code>", str(failure)) or re.search(r"status code: (\d{3})", str(failure))
    return found[1] if found else ""


def _broke_off(failure: Exception) -> bool:
    """Whether an answer had begun and did not arrive whole."""
    return isinstance(failure, BaseError) and not _code(failure)


def _in_conflict(failure: Exception) -> bool:
    """S3 could not decide between two who create at once; it asks to try again."""
    return isinstance(failure, botocore.exceptions.ClientError) and _code(failure) in (
        "ConditionalRequestConflict",
        "OperationAborted",
    )


def _missing(failure: FileNotFoundError, where: str) -> Exception:
    if _code(failure) == "NoSuchBucket":
        return StoreRefused(f"{where}: {_REFUSALS['NoSuchBucket']}.")
    return FileNotFoundError(where)


def _translated(failure: Exception, where: str) -> Exception:
    """The same as one of a store's errors. The libraries' own text stays out: it may quote what was signed."""
    code = _code(failure)
    if code in ("NoSuchKey", "404"):
        return FileNotFoundError(where)
    if code in _REFUSALS:
        return StoreRefused(f"{where}: {_REFUSALS[code]}.")
    if code in _FULL:
        return StoreFull(f"{where}: no space is left there. Free some, or name another with --set checkpoints.store=…")
    if code in _DAMAGED:
        return StoreError(f"{where}: what arrived is not what was sent ({code}); it was not kept.")
    if code:
        return StoreError(f"{where}: it answered {code}, again and again.")
    return StoreError(f"{where}: it cannot be reached, or its answers break off. Retrying did not help.")
