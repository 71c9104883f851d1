"""What the coordinator never forgets: a database and append-only files, durable together."""

from llamaforge.coordinator.ledger.durable_file import DurableFile
from llamaforge.coordinator.ledger.ledger import Ledger

__all__ = ["DurableFile", "Ledger"]
