"""What an installed worker still needs: said once, with the command, and never without reason."""

from __future__ import annotations

import pytest
from service_machine import FakeMachine

from llamaforge.service import needs
from llamaforge.service.kind import COORDINATOR
from llamaforge.service.places import UNIT, on_machine
from llamaforge.service.request import Request
from llamaforge.service.settings_text import settings_file

PLACES = on_machine()


@pytest.fixture
def machine(tmp_path) -> FakeMachine:
    return FakeMachine(tmp_path)


def installed(machine: FakeMachine, **settings: str) -> Request:
    machine.at(PLACES.settings).parent.mkdir(parents=True, exist_ok=True)
    machine.write(PLACES.settings, settings_file(settings), 0o644)
    return Request(settings=settings)


def test_without_a_coordinator_the_worker_waits_for_nobody(machine):
    (note,) = needs.of(installed(machine), PLACES, machine)
    assert "waits for nobody yet" in note
    assert "sudo llamaforge worker join HOST:PORT" in note


def test_a_coordinator_wants_a_token_or_a_worker_that_has_joined(machine):
    request = installed(machine, LLAMAFORGE_COORDINATOR="a:1")
    (note,) = needs.of(request, PLACES, machine)
    assert "sudo llamaforge worker join a:1" in note
    machine.write(PLACES.token, "word\n", 0o600)
    assert needs.of(request, PLACES, machine) == []
    machine.remove(PLACES.token)
    machine.make_folders("/var/lib/llamaforge/identity")
    assert needs.of(request, PLACES, machine) == []


def test_a_coordinator_needs_nothing(machine):
    assert needs.of(Request(), on_machine(kind=COORDINATOR), machine) == []


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({"MASTER_ADDR": "a"}, {}),
        ({}, {"env": {"MASTER_ADDR": "a"}}),
        ({}, {"exec": "/usr/bin/torchrun x"}),
    ],
)
def test_nothing_is_said_of_a_worker_that_has_all(machine, settings, more):
    installed(machine, **settings)
    assert needs.of(Request(settings=settings, **more), PLACES, machine) == []


def test_a_unit_of_somebodys_own_may_set_what_it_likes(machine):
    request = installed(machine)
    machine.write(f"/etc/systemd/system/{UNIT}", "[Service]\n", 0o644)
    assert needs.of(request, PLACES, machine) == []


def test_a_settings_file_with_a_mistake_is_left_to_the_worker(machine):
    request = installed(machine)
    machine.write(PLACES.settings, "MASTER_PROT=1\n", 0o644)
    assert needs.of(request, PLACES, machine) == []
