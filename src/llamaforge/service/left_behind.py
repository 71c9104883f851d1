"""What a service that was removed has left for the next one: its settings.

`--uninstall` keeps them, but forgets which files it wrote. Without this, a service that is
installed again would take its own settings file for one that somebody edited.
"""

from __future__ import annotations

import msgspec

from llamaforge.errors import SpecError
from llamaforge.service.machine import Machine
from llamaforge.service.manifest import Manifest, digest
from llamaforge.service.places import Places
from llamaforge.service.settings_text import settings_file
from llamaforge.spec.fleet import variables
from llamaforge.spec.settings_file import parse


def adopted(before: Manifest, places: Places, machine: Machine) -> Manifest:
    """The manifest, with the settings file that an earlier service has left, if it is ours.

    `--uninstall` leaves settings. Where nobody has edited them since they were written, they are
    what was chosen before, as if the service had never been away.
    """
    there = machine.read(places.settings)
    if places.settings in before.files or there is None:
        return before
    try:
        known = variables(places.kind.settings).values()
        values = parse(there, places.settings, known, places.kind.name).values
    except SpecError:
        return before
    if settings_file(values, places.kind) != there:
        return before
    return msgspec.structs.replace(
        before,
        request=msgspec.structs.replace(
            before.request, settings={**values, **before.request.settings}
        ),
        pending={places.settings: digest(there), **before.pending},
    )
