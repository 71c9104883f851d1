"""Rows made into tokens: templates, masks, the cache on disk, and the lint."""
