"""The conversation of a key-value store and its workers: messages and two pure machines."""

from veloflow.protocol.kvstore.client import Client
from veloflow.protocol.kvstore.server import Store

__all__ = ["Client", "Store"]
