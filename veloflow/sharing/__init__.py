"""How slaves share parameters: pure arithmetic on arrays, and what a user writes to choose."""

from veloflow.sharing.mode import Sharing, parse_sharing
from veloflow.sharing.ordered_sum import OrderedSum

__all__ = ["OrderedSum", "Sharing", "parse_sharing"]
