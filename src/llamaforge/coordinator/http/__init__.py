"""The coordinator's doors: who may come in, and what they may ask."""
