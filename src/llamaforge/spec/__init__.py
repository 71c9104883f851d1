"""Frozen data and pure arithmetic: what a job is, who takes part, and which slice is which.

Nothing in this room opens a socket, starts a process or imports torch.
"""
