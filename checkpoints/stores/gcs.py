"""A store in a Google Cloud Storage bucket. Credentials come from where Google's own tools take them;
STORAGE_EMULATOR_HOST names another server. Knows nothing of checkpoints.
"""

import base64
import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import google.auth.exceptions
import google_crc32c
import requests.exceptions
from google.api_core import exceptions as api
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from checkpoints.stores.protocol import Entry, StoreError, StoreRefused, Transfer

_PART_BYTES = 16 << 20
_PIECE_BYTES = 256 << 10
"""What the library is handed at a time: it keeps whatever it is given, a whole tensor too, and its checksum wants
`bytes`, a copy that is nearly free while it stays in the processor's cache."""
_WRITER = "writer"
"""Metadata of every object: a random token of the call that wrote it, so that it knows its own work again when the
answer was lost."""


_SIGN_IN = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key's file"
_REFUSALS = {
    401: f"there are no usable Google credentials; {_SIGN_IN}",
    403: "the credentials do not allow it; a run takes the role Storage Object User on the bucket",
    404: "there is no such bucket; create it, or correct the name",
}
"""By HTTP status; an object that is missing never comes this far."""


class GoogleStore:
    """Objects below `prefix` of a bucket."""

    def __init__(self, bucket: str, prefix: str, transfer: Transfer, client: Any = None) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"gs://{bucket}/{prefix}".rstrip("/")
        self.transfer = transfer
        with self._failing("opened"):
            self._client: Any = client or storage.Client()
        self._bucket = self._client.bucket(bucket)
        # With jitter, by Google's library; what is sent again is either conditional or the same bytes.
        self._how: dict[str, Any] = {
            "retry": DEFAULT_RETRY.with_timeout(transfer.retry_seconds),
            "timeout": (10, transfer.idle_seconds),
        }

    def inside(self, prefix: str) -> "GoogleStore":
        return GoogleStore(self.bucket, f"{self.prefix}{prefix.strip('/')}/", self.transfer, self._client)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        with self._failing("listed"):
            found = self._client.list_blobs(
                self._bucket, prefix=self._key(prefix), fields="items(name,size),nextPageToken", **self._how
            )
            for blob in found:
                yield Entry(blob.name.removeprefix(self.prefix), int(blob.size))

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        last = None if length is None else offset + length - 1
        whole = offset == 0 and length is None
        with self._failing(f"read ({name})"):
            try:
                # Google's checksum is of the whole object; who reads a part verifies it by the manifest.
                data: bytes = self._blob(name).download_as_bytes(
                    start=None if whole else offset, end=last, checksum="crc32c" if whole else None, **self._how
                )
            except api.RequestRangeNotSatisfiable:
                return b""
            except api.NotFound as failure:
                if "bucket does not exist" in str(failure):
                    raise
                raise FileNotFoundError(f"{self.uri}/{name}") from None
        return data

    def part(self, name: str, offset: int = 0, length: int | None = None) -> memoryview:
        return memoryview(self.read(name, offset, length))

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> int:
        blob, token = self._blob(name), uuid.uuid4().hex
        blob.metadata = {_WRITER: token}
        sent = _Sent()
        with self._failing(f"written ({name})"):
            try:
                self._upload(blob, sent.through(chunks))
            except (InvalidResponse, DataCorruption, api.GoogleAPICallError, requests.exceptions.RequestException):
                if not self._is_there(name, token, sent):  # else only the answer was lost
                    raise
                return sent.size
            if not self._is_there(name, token, sent):
                raise StoreError(
                    f"{self.uri}/{name} is not what was written: another size or checksum; it is not used."
                )
        return sent.size

    def _upload(self, blob: Any, chunks: Iterable[bytes]) -> None:
        """One part at a time in memory; an upload is taken up again where its connection broke."""
        part = min(_PART_BYTES, max(1 << 20, (self.transfer.memory_mb << 20) // 4))
        upload = blob.open("wb", chunk_size=part, ignore_flush=True, checksum="crc32c", **self._how)
        try:
            for chunk in chunks:
                upload.write(chunk)
            upload.close()
        except BaseException:
            with contextlib.suppress(requests.exceptions.RequestException):
                upload.terminate()  # being closed would make an object of what has been sent so far
            raise

    def create(self, name: str, data: bytes) -> bool:
        blob, token = self._blob(name), uuid.uuid4().hex
        blob.metadata = {_WRITER: token}
        with self._failing(f"written ({name})"):
            try:
                blob.upload_from_string(data, if_generation_match=0, checksum="crc32c", **self._how)
            except api.PreconditionFailed:
                # Somebody was first, or it was this very call and the answer was lost.
                sent = _Sent()
                for _ in sent.through([data]):
                    pass
                return self._is_there(name, token, sent)
        return True

    def delete(self, names: Iterable[str]) -> None:
        with self._failing("deleted from"):
            for name in names:
                with contextlib.suppress(api.NotFound):
                    self._blob(name).delete(**self._how)

    def tidy(self) -> None:
        """Nothing to do: an upload that was not finished is no object, costs nothing and ends by itself."""

    def place(self) -> str:
        if os.environ.get("STORAGE_EMULATOR_HOST"):
            return ""
        with self._failing("looked at"):
            # A bucket in "US" lies in several regions; its machines' region is never just that.
            return f"gcp/{self._client.get_bucket(self.bucket, **self._how).location.lower()}"

    def _is_there(self, name: str, token: str, sent: "_Sent") -> bool:
        """Whether `name` is the work of the call that had `token`, whole."""
        found = self._bucket.get_blob(self._key(name), **self._how)
        return (
            found is not None
            and (found.metadata or {}).get(_WRITER) == token
            and (int(found.size), found.crc32c) == (sent.size, sent.crc32c)
        )

    def _blob(self, name: str) -> Any:
        return self._bucket.blob(self._key(name))

    def _key(self, name: str) -> str:
        if ".." in name.split("/"):
            raise ValueError(f"{name!r} leaves the store")
        return self.prefix + name

    @contextlib.contextmanager
    def _failing(self, done: str) -> Iterator[None]:
        """Translate the library's words."""
        where = f"The store {self.uri} could not be {done}"
        try:
            yield
        except FileNotFoundError:
            raise
        except (google.auth.exceptions.DefaultCredentialsError, google.auth.exceptions.RefreshError):
            raise StoreRefused(f"{where}: {_REFUSALS[401]}.") from None
        except DataCorruption:
            raise StoreError(f"{where}: what arrived is not what was sent; it is not used.") from None
        except (api.GoogleAPICallError, InvalidResponse) as failure:
            raise _translated(failure, where) from None
        except (api.RetryError, google.auth.exceptions.TransportError, requests.exceptions.RequestException, OSError):
            what = "it cannot be reached, or its answers break off, however often it is tried; check the network"
            raise StoreError(f"{where}: {what}.") from None


def _translated(failure: Exception, where: str) -> StoreError:
    """What Google answered, as one of a store's errors; an upload's answer comes in another form than the others."""
    status = failure.response.status_code if isinstance(failure, InvalidResponse) else getattr(failure, "code", 0)
    if status in _REFUSALS:
        return StoreRefused(f"{where}: {_REFUSALS[status]}.")
    if status in (408, 429) or status >= 500:
        return StoreError(f"{where}: it answered {int(status)}, again and again; look at the server, or try later.")
    return StoreError(f"{where}: it answered {int(status)}; Google's documentation of that status says what to change.")


class _Sent:
    """Size and checksum of what went through."""

    def __init__(self) -> None:
        self.size = 0
        self._crc: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]

    def through(self, chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            for at in range(0, view.nbytes, _PIECE_BYTES):
                piece = bytes(view[at : at + _PIECE_BYTES])
                self._crc.update(piece)
                self.size += len(piece)
                yield piece

    @property
    def crc32c(self) -> str:
        return base64.b64encode(self._crc.digest()).decode()
