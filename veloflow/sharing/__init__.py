"""How slaves share parameters: pure arithmetic on arrays, and what a user writes to choose."""

from veloflow.sharing.ordered_sum import OrderedSum
from veloflow.sharing.policies import Policy, parse_sharing, sharing_text

__all__ = ["OrderedSum", "Policy", "parse_sharing", "sharing_text"]
