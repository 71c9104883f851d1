"""The worker's own port: who may connect, and what is told there."""
