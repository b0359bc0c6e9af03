"""From a URI to a store. Libraries of clouds are imported only for a URI that needs them."""

import re
from pathlib import Path

from checkpoints.stores.protocol import Store, StoreRefused, Transfer

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")
_BUCKET = re.compile(r"^(?:s3|gs)://([^/]+)/*(.*?)/*$")


def open_store(uri: str, transfer: Transfer | None = None) -> Store:
    """The store at `uri`: a folder, `s3://bucket/prefix` or `gs://bucket/prefix`.

    Raises StoreRefused for a scheme there is no store for, or where its library is not installed.
    """
    scheme = _SCHEME.match(uri)
    if scheme is None:
        from checkpoints.stores.folder import FolderStore

        return FolderStore(Path(uri).expanduser())
    bucket = _BUCKET.match(uri)
    if scheme[1] not in ("s3", "gs"):
        raise StoreRefused(f"There is no store for {scheme[1]}:// ({uri}); use s3://, gs:// or a folder.")
    if bucket is None:
        raise StoreRefused(f"{uri} names no bucket; write {scheme[1]}://bucket/prefix.")
    prefix = bucket[2] and bucket[2] + "/"
    try:
        if scheme[1] == "s3":
            from checkpoints.stores.s3 import S3Store

            return S3Store(bucket[1], prefix, transfer or Transfer())
        from checkpoints.stores.gcs import GoogleStore

        return GoogleStore(bucket[1], prefix, transfer or Transfer())
    except ImportError as failure:
        raise StoreRefused(
            f"A store at {scheme[1]}:// takes a library that is not installed ({failure.name}); install it with: "
            "pip install 'vlaunch[cloud]'"
        ) from failure
