"""A key-value store for training loops written by hand: init, push, pull, updater."""

from veloflow.kvstore.serving import StoreServer
from veloflow.kvstore.updaters import Updater, parse_updater
from veloflow.kvstore.worker import KeyValueStore

__all__ = ["KeyValueStore", "StoreServer", "Updater", "parse_updater"]
