"""The service on a node: dials its coordinator, watches for a classic store, runs ranks."""
