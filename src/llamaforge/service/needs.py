"""What an installed service still needs to be of use, with the command that gives it.

It starts and waits without these, so they are notes and no errors.
"""

from __future__ import annotations

from llamaforge.errors import SpecError
from llamaforge.service.kind import WORKER
from llamaforge.service.machine import Machine
from llamaforge.service.places import Places
from llamaforge.service.request import Request
from llamaforge.spec import settings_file
from llamaforge.spec.fleet import WorkerSettings, variables

IDENTITY = "identity"
"""The folder in a worker's state that holds its key and certificate."""


def of(request: Request, places: Places, machine: Machine) -> list[str]:
    """Sentences about what is missing; none where something else than the worker is run.

    Args:
        request: what was installed.
        places: where the service's files are.
        machine: to look at, after everything was written.
    """
    if places.kind is not WORKER:
        return []
    own_unit = (
        not places.lingering and machine.read(f"/etc/systemd/system/{places.kind.unit}") is not None
    )
    if request.exec or own_unit:
        return []
    try:
        text = machine.read(places.settings) or ""
        found = settings_file.parse(text, places.settings, variables(WorkerSettings).values())
    except SpecError:
        return []  # the worker itself names the line when it starts
    values = {**found.values, **request.env}
    sudo = "" if places.lingering else "sudo "
    install = f"{sudo}llamaforge worker install" + (" --lingering" if places.lingering else "")
    if not values.get("LLAMAFORGE_COORDINATOR") and not values.get("MASTER_ADDR"):
        return [
            f"note: {places.settings} names no coordinator, so the worker waits for nobody yet: "
            f"{sudo}llamaforge worker join HOST:PORT, or, for torchrun, "
            f"{install} --master-addr HOST"
        ]
    if (where := values.get("LLAMAFORGE_COORDINATOR")) and not _may_join(places, machine):
        return [
            "note: this machine is in no fleet yet; `llamaforge coordinator token` on the "
            f"coordinator gives a token for: {sudo}llamaforge worker join {where}"
        ]
    return []


def _may_join(places: Places, machine: Machine) -> bool:
    """Whether the worker has an identity of a fleet already, or a token for one."""
    identity = machine.at(f"{places.state}/{IDENTITY}")
    return identity.is_dir() or bool((machine.read(places.token) or "").strip())
