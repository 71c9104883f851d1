"""A service that is installed again goes on with the settings that the one before has left."""

from __future__ import annotations

import pytest
from service_machine import FACTS, FakeMachine

from llamaforge.service import apply, manifest, removal
from llamaforge.service.left_behind import adopted
from llamaforge.service.manifest import Manifest
from llamaforge.service.places import on_machine
from llamaforge.service.plan import make
from llamaforge.service.request import Request, merged

PLACES = on_machine()


@pytest.fixture
def machine(tmp_path) -> FakeMachine:
    return FakeMachine(tmp_path)


def install(machine: FakeMachine, **settings: str) -> Request:
    before = adopted(manifest.read(machine.at(PLACES.manifest)), PLACES, machine)
    request = merged(before.request, {"settings": settings})
    plan = make(request, FACTS, PLACES)
    apply.apply(apply.prepare(plan, before, FACTS, PLACES, machine), machine)
    return request


def uninstall(machine: FakeMachine) -> None:
    before = manifest.read(machine.at(PLACES.manifest))
    plan = removal.plan(before, PLACES, purge=False)
    removal.carry_out(plan, PLACES, machine, running=False)


def test_settings_that_nobody_edited_stay_ours(machine):
    install(machine, MASTER_ADDR="10.0.0.1", NODE_RANK="1")
    uninstall(machine)
    request = install(machine, MASTER_ADDR="10.0.0.9")
    assert request.settings == {"MASTER_ADDR": "10.0.0.9", "NODE_RANK": "1"}
    assert "\nMASTER_ADDR=10.0.0.9\n" in (machine.read(PLACES.settings) or "")
    assert machine.read(PLACES.settings + ".new") is None


def test_settings_that_somebody_edited_stay_theirs(machine):
    install(machine, MASTER_ADDR="10.0.0.1")
    uninstall(machine)
    edited = (machine.read(PLACES.settings) or "") + "# mine\n"
    machine.write(PLACES.settings, edited, 0o644)
    install(machine, MASTER_ADDR="10.0.0.9")
    assert machine.read(PLACES.settings) == edited
    assert "10.0.0.9" in (machine.read(PLACES.settings + ".new") or "")


@pytest.mark.parametrize("text", [None, "MASTER_PROT=1\n", "MASTER_ADDR=10.0.0.1\n"])
def test_what_is_not_ours_changes_nothing(machine, text):
    if text is not None:
        machine.at(PLACES.settings).parent.mkdir(parents=True)
        machine.write(PLACES.settings, text, 0o644)
    assert adopted(Manifest(), PLACES, machine) == Manifest()
