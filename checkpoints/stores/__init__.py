"""Where runs are kept: one small protocol, and the store for a URI. A store knows bytes under names, nothing
of what they mean.
"""

from checkpoints.stores.protocol import Entry, Store, StoreError, StoreFull, StoreRefused, Transfer
from checkpoints.stores.uri import open_store

__all__ = ["Entry", "Store", "StoreError", "StoreFull", "StoreRefused", "Transfer", "open_store"]
