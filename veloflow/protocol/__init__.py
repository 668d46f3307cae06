"""Who does which piece of work: messages and the ledger. No sockets, clocks, threads or arrays."""

from veloflow.protocol.ledger import Lease, Ledger, Verdict
from veloflow.protocol.messages import LeaseId, Piece

__all__ = ["Lease", "LeaseId", "Ledger", "Piece", "Verdict"]
