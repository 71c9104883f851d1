"""The other LlamaForge service on the same machine: what is its own stays when this one goes.

Worker and coordinator share the folder of settings, the programs that mail, and the folders above
their units. Whoever goes last takes them along.
"""

from __future__ import annotations

import msgspec

from llamaforge.service import manifest as manifests
from llamaforge.service.kind import KINDS
from llamaforge.service.machine import Machine
from llamaforge.service.manifest import Manifest
from llamaforge.service.places import Places, on_machine


def files(places: Places, machine: Machine) -> frozenset[str]:
    """The files of the other service; a person's own service has no other.

    Raises:
        UserError: its manifest is damaged.
    """
    return frozenset(
        path for one in _others(places, machine) for path in (*one.files, *one.aside, *one.pending)
    )


def adopted(manifest: Manifest, places: Places, machine: Machine) -> Manifest:
    """The manifest with the folders, too, that the other service has made: the last one to go
    removes them.

    Raises:
        UserError: the other's manifest is damaged.
    """
    folders = [folder for one in _others(places, machine) for folder in one.folders]
    every = dict.fromkeys((*manifest.folders, *folders))
    return msgspec.structs.replace(manifest, folders=tuple(sorted(every)))


def _others(places: Places, machine: Machine) -> list[Manifest]:
    if places.lingering:
        return []
    return [
        manifests.read(machine.at(on_machine(kind=kind).manifest))
        for kind in KINDS
        if kind != places.kind
    ]
