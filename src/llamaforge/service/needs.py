"""What an installed worker still needs to be of use, with the command that gives it.

It starts and waits without these, so they are notes and no errors.
"""

from __future__ import annotations

from llamaforge.errors import SpecError
from llamaforge.service.machine import Machine
from llamaforge.service.places import UNIT, Places
from llamaforge.service.request import Request
from llamaforge.spec import settings_file
from llamaforge.spec.fleet import WorkerSettings, variables


def of(request: Request, places: Places, machine: Machine) -> list[str]:
    """Sentences about what is missing; none where something else than the worker is run.

    Args:
        request: what was installed.
        places: where the service's files are.
        machine: to look at, after everything was written.
    """
    own_unit = not places.lingering and machine.read(f"/etc/systemd/system/{UNIT}") is not None
    if request.exec or own_unit:
        return []
    try:
        text = machine.read(places.settings) or ""
        found = settings_file.parse(text, places.settings, variables(WorkerSettings).values())
    except SpecError:
        return []  # the worker itself names the line when it starts
    values = {**found.values, **request.env}
    install = "llamaforge worker install" + (" --lingering" if places.lingering else "")
    install = install if places.lingering else f"sudo {install}"
    if not values.get("LLAMAFORGE_COORDINATOR") and not values.get("MASTER_ADDR"):
        return [
            f"note: {places.settings} names no coordinator, so the worker waits for nobody yet: "
            f"{install} --coordinator HOST:PORT --token-file FILE, or, for torchrun, "
            f"{install} --master-addr HOST"
        ]
    if values.get("LLAMAFORGE_COORDINATOR") and not (machine.read(places.token) or "").strip():
        return [
            "note: the coordinator takes no worker without the fleet's token: "
            f"{install} --token-file FILE  # FILE: a copy of `token` in its state folder"
        ]
    return []
