"""LF2xx: the service, each fault on a made-up machine."""

from __future__ import annotations

import json

import pytest
from doctor_machine import HEALTHY, FakeMachine

from llamaforge.doctor.checks import (
    coordinator_service,
    journal,
    lingering,
    ports,
    reachable,
    service,
)
from llamaforge.doctor.contact import Contact
from llamaforge.doctor.finding import Severity
from llamaforge.service.kind import COORDINATOR
from llamaforge.service.places import UNIT

START, UNMASK = (f"systemctl {verb} llamaforge-worker" for verb in ("start", "unmask"))
ALL = (service, ports, reachable, journal, lingering, coordinator_service)


def journal_of(machine: FakeMachine, *entries: dict[str, str]) -> None:
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    machine.says(f"journalctl -u {UNIT}", text)


def listening(machine: FakeMachine, port: int, pid: int, cmdline: str, cgroup: str) -> None:
    """A process of /proc that listens."""
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid\n"
    row = f" 0: 00000000:{port:04X} 00000000:0000 0A 0:0 00:0 0 0 0 777 1 0\n"
    machine.write("/proc/net/tcp", head + row)
    machine.write(f"/proc/{pid}/comm", cmdline.split("\0")[0].rpartition("/")[2] + "\n")
    machine.write(f"/proc/{pid}/cmdline", cmdline)
    machine.write(f"/proc/{pid}/cgroup", f"0::{cgroup}\n")
    handles = machine.path(f"/proc/{pid}/fd")
    handles.mkdir(parents=True)
    (handles / "3").symlink_to("socket:[777]")


def test_a_service_that_is_well_has_no_findings(machine: FakeMachine) -> None:
    machine.write("/run/systemd/system/x", "")
    machine.write("/var/log/journal/x", "")
    machine.peer("10.0.0.1", 29500, {"connected": True})
    assert [f for module in ALL for f in machine.look(module.CHECK)] == []


# ── LF201 ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changed", "severity", "seen", "fix"),
    [
        (
            {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "203"},
            Severity.ERROR,
            "has failed; exit status 203: the program of ExecStart can't be started",
            "systemctl reset-failed llamaforge-worker",
        ),
        (
            {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78"},
            Severity.ERROR,
            "a restart can't help",
            "systemctl reset-failed llamaforge-worker",
        ),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "9"},
            Severity.ERROR,
            "ends again and again (9 restarts)",
            f"journalctl -u {UNIT} -n 50",
        ),
        (
            {"ActiveState": "activating", "SubState": "start", "StatusText": "resolving boss"},
            Severity.NOTE,
            "is starting: resolving boss",
            f"journalctl -u {UNIT} -f",
        ),
        ({"ActiveState": "inactive"}, Severity.ERROR, "is stopped", START),
        (
            {"NRestarts": "7", "Result": "watchdog"},
            Severity.WARNING,
            "runs now, after 7 restarts; result watchdog",
            f"journalctl -u {UNIT} -n 50",
        ),
        (
            {"UnitFileState": "disabled"},
            Severity.WARNING,
            "will not start on boot",
            "systemctl enable llamaforge-worker",
        ),
        (
            {"NeedDaemonReload": "yes"},
            Severity.WARNING,
            "have changed since systemd read them",
            "systemctl daemon-reload",
        ),
        ({"LoadState": "masked"}, Severity.ERROR, "is masked", UNMASK),
        (
            {"LoadState": "bad-setting"},
            Severity.ERROR,
            "can't be loaded (bad-setting)",
            f"systemd-analyze verify {UNIT}",
        ),
        (
            {"LoadState": "not-found"},
            Severity.NOTE,
            "is not installed",
            "llamaforge worker install",
        ),
    ],
)  # fmt: skip
def test_each_state_of_the_unit(
    machine: FakeMachine, changed: dict[str, str], severity: Severity, seen: str, fix: str
) -> None:
    machine.unit(**changed)
    (found,) = machine.look(service.CHECK)
    assert found.severity is severity
    assert seen in found.seen
    assert found.fix[0] == fix


def test_the_last_error_of_the_journal_is_told(machine: FakeMachine) -> None:
    machine.unit(ActiveState="failed", Result="exit-code", ExecMainStatus="1")
    journal_of(
        machine,
        {"_PID": "5", "PRIORITY": "3", "MESSAGE": "the cache can't be written"},
        {"_PID": "5", "PRIORITY": "6", "MESSAGE": "bye"},
        {"_PID": "1", "PRIORITY": "3", "MESSAGE": "Failed with result 'exit-code'."},
    )
    (found,) = machine.look(service.CHECK)
    assert found.seen.endswith("last error: the cache can't be written")


def test_the_hint_below_an_error_is_not_taken_for_it(machine: FakeMachine) -> None:
    machine.unit(ActiveState="failed", Result="exit-code", ExecMainStatus="78")
    journal_of(
        machine,
        {
            "_PID": "5",
            "PRIORITY": "6",
            "MESSAGE": "error: MASTER_PROT is no setting",
        },
        {"_PID": "5", "PRIORITY": "6", "MESSAGE": "  did you mean MASTER_PORT?"},
    )
    (found,) = machine.look(service.CHECK)
    assert found.seen.endswith("last error: MASTER_PROT is no setting")


def test_without_systemd_it_is_said(machine: FakeMachine) -> None:
    machine.says(f"systemctl show {UNIT}", code=1)
    (found,) = machine.look(service.CHECK)
    assert found.seen.startswith("systemd does not answer here")


# ── LF202 ─────────────────────────────────────────────────────────────────────────────────────


def test_a_port_that_another_service_has(machine: FakeMachine) -> None:
    listening(machine, 29500, 812, "/usr/sbin/nginx", "/system.slice/nginx.service")
    (found,) = machine.look(ports.CHECK)
    assert (found.severity, found.about) == (Severity.WARNING, "29500")
    assert "nginx (pid 812)" in found.seen
    assert found.fix == ("systemctl stop nginx.service",)


def test_a_port_that_a_persons_process_has(machine: FakeMachine) -> None:
    listening(machine, 29500, 812, "nc\0-l", "/user.slice/user-1000.slice/session-1.scope")
    assert machine.look(ports.CHECK)[0].fix == ("kill 812",)


def test_the_workers_own_port_and_torchrun_are_fine(machine: FakeMachine) -> None:
    listening(machine, 29500, 812, "python3\0-m", "/system.slice/llamaforge-worker.service")
    assert machine.look(ports.CHECK) == []
    machine.write("/proc/812/cgroup", "0::/user.slice\n")
    machine.write("/proc/812/cmdline", "python3\0-m\0torch.distributed.run\0x.py")
    assert machine.look(ports.CHECK) == []


def test_the_port_of_the_store_on_the_masters_own_host(machine: FakeMachine) -> None:
    machine.unit(Environment="MASTER_ADDR=10.0.0.1 NODE_RANK=0")
    listening(machine, 29500, 812, "nc\0-l", "/user.slice")
    (found,) = machine.look(ports.CHECK)
    assert found.severity is Severity.ERROR
    assert "which torchrun's store needs on this host, is in use by nc (pid 812)" in found.seen


def test_a_holder_that_only_root_can_see(machine: FakeMachine) -> None:
    machine.says("ss -Hltn sport = :29500", "LISTEN 0 128 0.0.0.0:29500 0.0.0.0:*\n")
    (found,) = machine.look(ports.CHECK)
    assert "a process that only root can see" in found.seen
    machine.peer("127.0.0.1", 29500, {"connected": True})
    assert machine.look(ports.CHECK) == []


# ── LF203 ─────────────────────────────────────────────────────────────────────────────────────


def test_active_and_silent(machine: FakeMachine) -> None:
    machine.contacts["10.0.0.1", 29500] = Contact.REFUSED
    (found,) = machine.look(reachable.CHECK)
    assert (found.severity, found.about) == (Severity.ERROR, "10.0.0.1:29500")
    assert "is active, but nothing listens at 10.0.0.1:29500" in found.seen
    machine.contacts["10.0.0.1", 29501] = Contact.OPEN
    assert "accepts connections and answers nothing" in machine.look(reachable.CHECK)[0].seen


def test_only_on_loopback(machine: FakeMachine) -> None:
    machine.peer("127.0.0.1", 29501, {"connected": False})
    (found,) = machine.look(reachable.CHECK)
    assert "answers on 127.0.0.1:29501, and not on 10.0.0.1" in found.seen
    assert found.fix[0] == "echo LLAMAFORGE_PEER_HOST=0.0.0.0 | tee -a /etc/llamaforge/worker.conf"


def test_a_worker_that_took_the_next_port_is_found(machine: FakeMachine) -> None:
    machine.peer("10.0.0.1", 29502, {"connected": True})
    assert machine.look(reachable.CHECK) == []


def test_a_unit_edited_to_torchrun_has_no_port_of_ours(machine: FakeMachine) -> None:
    line = "/opt/llamaforge/current/bin/python3 -m torch.distributed.run x.py"
    machine.unit(ExecStart=f"{{ path=/x ; argv[]={line} ; ignore_errors=no ; }}")
    assert machine.look(reachable.CHECK) == []


# ── LF204, LF205 ──────────────────────────────────────────────────────────────────────────────


def test_a_journal_in_memory(machine: FakeMachine) -> None:
    machine.write("/run/systemd/system/x", "")
    (found,) = machine.look(journal.CHECK)
    assert (found.severity, found.about) == (Severity.NOTE, "/var/log/journal")
    machine.write("/var/log/journal/x", "")
    machine.write("/etc/systemd/journald.conf.d/a.conf", "[Journal]\nStorage=volatile\n")
    (found,) = machine.look(journal.CHECK)
    assert "Storage=volatile" in found.seen
    assert "zz-llamaforge.conf" in found.fix[1]


def coordinator_unit(machine: FakeMachine, **changed: str) -> None:
    lines = [f"{name}={value}" for name, value in {**HEALTHY, **changed}.items()]
    machine.says(f"systemctl show {COORDINATOR.unit}", "\n".join(lines))


def test_a_machine_without_a_coordinator_has_nothing_to_say_of_it(machine: FakeMachine) -> None:
    assert machine.look(coordinator_service.CHECK) == []


def test_a_coordinators_service_that_has_failed_or_will_not_start_on_boot(
    machine: FakeMachine,
) -> None:
    machine.stat("/var/lib/llamaforge-coordinator", "directory|700|x|llamaforge|4096")
    coordinator_unit(machine)
    assert machine.look(coordinator_service.CHECK) == []
    failed = {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78"}
    coordinator_unit(machine, **failed)
    (found,) = machine.look(coordinator_service.CHECK)
    assert found.about == COORDINATOR.unit
    assert "a restart can't help" in found.seen
    assert "systemctl start llamaforge-coordinator" in found.fix
    coordinator_unit(machine, UnitFileState="disabled")
    (found,) = machine.look(coordinator_service.CHECK)
    assert found.fix == ("systemctl enable llamaforge-coordinator",)
    coordinator_unit(machine, UnitFileState="masked")
    (found,) = machine.look(coordinator_service.CHECK)
    assert found.fix == ("systemctl unmask llamaforge-coordinator",)


def test_an_authority_that_others_can_look_at(machine: FakeMachine) -> None:
    coordinator_unit(machine)
    machine.stat("/var/lib/llamaforge-coordinator", "directory|755|x|llamaforge|4096")
    (found,) = machine.look(coordinator_service.CHECK)
    assert "holds the key of the fleet's authority" in found.seen
    assert found.fix == ("chmod 700 /var/lib/llamaforge-coordinator",)


def test_a_user_service_without_lingering(machine: FakeMachine) -> None:
    machine.uid = 1000
    machine.says("id -un", "ann\n")
    own = machine.commands[f"systemctl show {UNIT}"]
    machine.commands[f"systemctl --user show {UNIT}"] = own
    machine.unit(LoadState="not-found")
    (found,) = machine.look(lingering.CHECK)
    assert found.fix == ("loginctl enable-linger ann",)
    failed = own._replace(out=f"{own.out}\nActiveState=failed\nNeedDaemonReload=yes")
    machine.commands[f"systemctl --user show {UNIT}"] = failed
    lines = [line for finding in machine.look(service.CHECK) for line in finding.fix]
    assert "systemctl --user reset-failed llamaforge-worker" in lines
    assert not any("sudo" in line for line in lines)
    machine.commands[f"systemctl --user show {UNIT}"] = own
    machine.write("/var/lib/systemd/linger/ann", "")
    assert machine.look(lingering.CHECK) == []
