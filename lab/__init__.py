"""A fleet of real systemd machines on one Linux box, for tests and for a look by hand.

    from lab import Lab

    with Lab.open() as lab:
        node = lab.add("node1")
        node.boot()
        print(node.run("systemctl", "is-system-running").stdout)

A node is an overlay of the box's own root, booted by systemd-nspawn: it needs no image and no
download. README.md has the verbs, and what such a node can't show.
"""

from lab.errors import LabError
from lab.lab import Lab
from lab.node import Node

__all__ = ["Lab", "LabError", "Node"]
