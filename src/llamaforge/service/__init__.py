"""A service on a machine, as files: what to install, how, and how to take it away.

`kind` says what worker and coordinator differ in, `request` is what was asked for, `plan` makes
files and commands of it without touching anything, `apply` carries a plan out, `manifest` remembers
it, `removal` is the way back.
"""
