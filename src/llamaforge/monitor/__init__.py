"""What a job leaves to read: metrics, events, and the picture of its loss.

Metrics and events are JSON lines, one object a line, appended and flushed at once, so that any
tool can follow them and a crash costs at most the line being written.
"""
