"""Worker and coordinator on one machine: each comes and goes without the other's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from service_machine import FACTS, FakeMachine

from llamaforge.errors import SpecError
from llamaforge.service import apply, left_behind, manifest, neighbours, removal, restart
from llamaforge.service.kind import COORDINATOR, KINDS, WORKER, Kind
from llamaforge.service.places import Places, on_machine
from llamaforge.service.plan import File, make
from llamaforge.service.request import Request, asked_settings
from llamaforge.service.settings_text import settings_file
from llamaforge.spec.fleet import CoordinatorSettings, variables
from llamaforge.spec.settings_file import parse

DROPIN = "/etc/systemd/system/llamaforge-coordinator.service.d/50-install.conf"


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def places(kind: Kind) -> Places:
    return on_machine(kind=kind)


def planned(**request: object) -> dict[str, File]:
    plan = make(Request(**request), FACTS, places(COORDINATOR))  # type: ignore[arg-type]
    return {file.path: file for file in plan.files}


def install(machine: FakeMachine, kind: Kind, token: str | None = None, **request: object) -> None:
    where = places(kind)
    before = left_behind.adopted(manifest.read(machine.at(where.manifest)), where, machine)
    before = neighbours.adopted(before, where, machine)
    plan = make(Request(**request), FACTS, where, token=token)  # type: ignore[arg-type]
    apply.apply(apply.prepare(plan, before, FACTS, where, machine), machine)


def remove(machine: FakeMachine, kind: Kind, *, purge: bool) -> list[str]:
    where = places(kind)
    plan = removal.plan(
        manifest.read(machine.at(where.manifest)),
        where,
        purge=purge,
        others=neighbours.files(where, machine),
    )
    return removal.carry_out(plan, where, machine, running=True)


def test_a_coordinator_is_unit_account_and_settings_and_no_devices() -> None:
    assert set(planned()) == {
        "/usr/local/lib/systemd/system/llamaforge-coordinator.service",
        "/usr/local/lib/sysusers.d/llamaforge-coordinator.conf",
        "/etc/llamaforge/coordinator.conf",
    }
    limited = planned(memory="2G", mail_to="ops@example.org")
    assert "MemoryMax=2G" in limited[DROPIN].content
    assert "coordinator install" in limited[DROPIN].content
    assert "SupplementaryGroups" not in limited[DROPIN].content
    assert DROPIN.replace("50-install", "60-mail") in limited


def test_a_program_elsewhere_is_started_as_a_coordinator() -> None:
    plan = make(Request(), FACTS, on_machine("/srv/current", COORDINATOR))
    (text,) = [file.content for file in plan.files if file.path == DROPIN]
    assert "ExecStart=/srv/current/bin/llamaforge coordinator run" in text


def test_its_settings_file_explains_every_key_and_is_read_back() -> None:
    given = {"LLAMAFORGE_PUBLIC": "forge:29400", "LLAMAFORGE_NODE_GRACE": "9"}
    text = settings_file(given, COORDINATOR)
    known = variables(CoordinatorSettings).values()
    assert parse(text, "coordinator.conf", known, "coordinator").values == given
    assert "#LLAMAFORGE_HOST=::\n" in text
    assert "ranks' environment" not in text
    for variable in asked_settings(COORDINATOR).values():
        assert f"{variable}=" in text


def test_a_setting_is_checked_as_the_coordinator_would() -> None:
    with pytest.raises(SpecError, match="LLAMAFORGE_PUBLIC"):
        planned(settings={"LLAMAFORGE_PUBLIC": "a..b"})
    with pytest.raises(SpecError, match="LLAMAFORGE_PORT"):
        planned(settings={"LLAMAFORGE_PORT": "many"})


@pytest.mark.parametrize("first", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("leaves", KINDS, ids=lambda kind: kind.name)
def test_one_goes_and_the_other_stays_whole(machine, first, leaves):
    nothing = machine.everything()
    second = next(kind for kind in KINDS if kind != first)
    stays = next(kind for kind in KINDS if kind != leaves)
    install(machine, stays, mail_to="a@b")
    alone = machine.everything()
    remove(machine, stays, purge=True)
    assert machine.everything() == nothing

    for kind in (first, second):
        install(machine, kind, mail_to="a@b")
    machine.write("/etc/llamaforge/token", "by hand\n", 0o600)
    assert remove(machine, leaves, purge=True) == []
    left = {path: text for path, text in machine.everything().items() if path in alone}
    own = {
        path for path in alone if "manifest.json" not in path and "/coordinator.json" not in path
    }
    assert {path: left.get(path) for path in own} == {path: alone[path] for path in own}
    gone = places(leaves)
    assert machine.read(gone.settings) is None
    assert (machine.read("/etc/llamaforge/token") is None) == (leaves is WORKER)

    assert remove(machine, stays, purge=True) == []
    assert machine.everything() == nothing


def test_the_shared_group_goes_with_the_last_service(machine):
    install(machine, WORKER)
    install(machine, COORDINATOR)
    remove(machine, WORKER, purge=False)
    assert "userdel llamaforge" in machine.ran
    assert "groupdel llamaforge" not in machine.ran
    remove(machine, COORDINATOR, purge=False)
    assert "userdel llamaforge-coordinator" in machine.ran
    assert "groupdel llamaforge" in machine.ran


def test_a_coordinator_is_restarted_without_looking_for_jobs(machine):
    machine.answers = {"show": "ActiveState=active\nMainPID=7\n"}
    running = restart.look(machine, places(COORDINATOR))
    turn, why = restart.decide(running, changed=True, now=False)
    assert turn is restart.Turn.RESTART
    assert "job goes on" in why
    restart.carry_out(turn, places(COORDINATOR), machine)
    assert machine.ran[-1] == "systemctl restart llamaforge-coordinator.service"
