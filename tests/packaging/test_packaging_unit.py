"""The unit files as text: which systemd they need, what systemd itself says of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llamaforge.service.gates import GATED, OLDEST
from llamaforge.spec.fleet import WorkerSettings

SYSTEMD = Path(__file__).resolve().parents[2] / "packaging" / "systemd"
UNIT = SYSTEMD / "llamaforge-worker.service"
COORDINATOR = SYSTEMD / "llamaforge-coordinator.service"
BOTH = pytest.mark.parametrize("unit", [UNIT, COORDINATOR], ids=lambda unit: unit.stem)
PERSONS = SYSTEMD / "user" / "llamaforge-worker.service"

# Directive to the first systemd that knows it. Sources: systemd.directives(7), the "Added in
# version" notes of systemd.unit(5), .service(5), .exec(5), .kill(5) and .resource-control(5), and
# systemd's NEWS; 1 stands for "long before". A directive that is missing here fails the test: look
# it up and add it.
SINCE = {
    "After": 1,
    "AmbientCapabilities": 229,
    "CacheDirectory": 235,
    "CacheDirectoryMode": 235,
    "CapabilityBoundingSet": 21,
    "Delegate": 218,
    "DelegateSubgroup": 254,
    "Description": 1,
    "DeviceAllow": 208,
    "DevicePolicy": 208,
    "Documentation": 201,
    "Environment": 1,
    "EnvironmentFile": 1,
    "ExecReload": 1,
    "ExecStart": 1,
    "ExecStartPre": 1,
    "Group": 1,
    "InaccessiblePaths": 231,
    "KeyringMode": 235,
    "KillMode": 187,
    "LimitCORE": 1,
    "LimitMEMLOCK": 1,
    "LimitNOFILE": 1,
    "LoadCredential": 247,
    "LockPersonality": 235,
    "LogRateLimitBurst": 240,
    "LogRateLimitIntervalSec": 240,
    "LogsDirectory": 235,
    "LogsDirectoryMode": 235,
    "MemoryDenyWriteExecute": 231,
    "NoNewPrivileges": 187,
    "NotifyAccess": 1,
    "OOMPolicy": 243,
    "PrivateDevices": 209,
    "PrivateIPC": 248,
    "PrivateMounts": 239,
    "PrivateTmp": 1,
    "PrivateUsers": 232,
    "ProtectClock": 245,
    "ProtectControlGroups": 232,
    "ProtectHome": 214,
    "ProtectHostname": 242,
    "ProtectKernelLogs": 244,
    "ProtectKernelModules": 232,
    "ProtectKernelTunables": 232,
    "ProtectProc": 247,
    "ProtectSystem": 214,
    "ReadWritePaths": 231,
    "RemoveIPC": 232,
    "Restart": 1,
    "RestartMaxDelaySec": 254,
    "RestartPreventExitStatus": 189,
    "RestartSec": 1,
    "RestartMode": 254,
    "RestartSteps": 254,
    "RestrictAddressFamilies": 211,
    "RestrictNamespaces": 233,
    "RestrictRealtime": 231,
    "RestrictSUIDSGID": 242,
    "RuntimeDirectory": 211,
    "RuntimeDirectoryMode": 211,
    "RuntimeDirectoryPreserve": 235,
    "SetCredential": 247,
    "StartLimitIntervalSec": 230,
    "StateDirectory": 235,
    "StateDirectoryMode": 235,
    "SyslogIdentifier": 1,
    "SystemCallArchitectures": 209,
    "SystemCallErrorNumber": 209,
    "SystemCallFilter": 187,
    "TasksMax": 227,
    "TemporaryFileSystem": 238,
    "TimeoutAbortSec": 243,
    "TimeoutStartSec": 188,
    "TimeoutStopSec": 188,
    "Type": 1,
    "UMask": 1,
    "User": 1,
    "WantedBy": 1,
    "Wants": 1,
    "WatchdogSec": 1,
    "WorkingDirectory": 1,
}
# Values that came later than their directive.
VALUES_SINCE = {
    ("Type", "notify-reload"): 253,
    ("Type", "exec"): 240,
    ("KillMode", "mixed"): 209,
    ("ProtectSystem", "strict"): 232,
    ("ProtectHome", "tmpfs"): 238,
}


def directives(text: str) -> Iterator[tuple[str, str]]:
    """Name and value of every line that sets something."""
    for line in text.splitlines():
        found = re.fullmatch(r"([A-Za-z]+)=(.*)", line)
        if found:
            yield found[1], found[2]


def needs(text: str) -> int:
    """The oldest systemd that understands all of a unit file; KeyError for an unknown line."""
    return max(
        max(SINCE[name], VALUES_SINCE.get((name, value), 0)) for name, value in directives(text)
    )


def test_every_line_of_a_unit_is_a_comment_a_section_or_a_directive():
    for file in SYSTEMD.rglob("*"):
        if file.is_file():
            for line in file.read_text(encoding="utf-8").splitlines():
                assert re.fullmatch(r"|#.*|\[[A-Z][a-z]+\]|[A-Za-z]+=.*", line), f"{file}: {line}"


@pytest.mark.parametrize(
    "file", [UNIT, COORDINATOR, PERSONS, SYSTEMD / "paths.conf"], ids=lambda file: str(file)[-32:]
)
def test_the_base_needs_no_newer_systemd_than_the_oldest(file):
    assert needs(file.read_text(encoding="utf-8")) <= OLDEST


@BOTH
def test_newer_directives_stand_behind_the_gate_of_their_version(unit):
    folder = SYSTEMD / f"{unit.name}.d"
    assert {file.name for file in folder.iterdir()} == set(GATED.values())
    for version, name in GATED.items():
        assert OLDEST < needs((folder / name).read_text(encoding="utf-8")) <= version
        assert str(version) in name


@pytest.mark.parametrize("newer", ["DelegateSubgroup=x", "RestartSteps=3", "Type=notify-reload"])
def test_a_newer_line_in_the_base_would_be_noticed(newer):
    assert needs(UNIT.read_text(encoding="utf-8") + newer + "\n") > OLDEST


def test_an_unknown_line_in_the_base_would_be_noticed():
    with pytest.raises(KeyError, match="RestrictEverything"):
        needs("RestrictEverything=yes")


@BOTH
def test_nothing_ends_a_service_for_ever_but_a_wrong_setting(unit):
    says = dict(directives(unit.read_text(encoding="utf-8")))
    assert says["Restart"] == "always"
    assert says["StartLimitIntervalSec"] == "0"
    assert says["RestartPreventExitStatus"] == "78"
    assert says["OOMPolicy"] == ("continue" if unit is UNIT else "stop")
    assert says["KillMode"] == "mixed"


def test_worker_and_coordinator_have_nothing_to_do_with_each_other():
    """A restart of one must not touch the other, and neither may read the other's secrets."""
    worker, coordinator = (dict(directives(unit.read_text())) for unit in (UNIT, COORDINATOR))
    assert worker["User"] != coordinator["User"]
    assert coordinator["StateDirectoryMode"] == coordinator["CacheDirectoryMode"] == "0700"
    assert coordinator["UMask"] == "0077"
    text = UNIT.read_text() + COORDINATOR.read_text()
    for bond in ("PartOf", "BindsTo", "Requires", "Requisite", "PropagatesStopTo", "Conflicts"):
        assert f"\n{bond}=" not in text


@BOTH
def test_no_core_dump_can_hold_a_key(unit):
    assert dict(directives(unit.read_text()))["LimitCORE"] == "0"


def test_people_at_the_coordinators_socket_keep_their_names():
    """In a user name space of its own it would take everybody for `nobody`."""
    assert "PrivateUsers" not in dict(directives(COORDINATOR.read_text()))


def test_a_checkpoint_fits_into_the_time_to_stop():
    says = dict(directives(UNIT.read_text(encoding="utf-8")))
    fields = {field.name: field for field in msgspec.structs.fields(WorkerSettings)}
    assert float(says["TimeoutStopSec"].rstrip("s")) >= fields["stop_seconds"].default + 15


@pytest.fixture(scope="module")
def analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not on this machine")
    return program


@pytest.mark.parametrize(("unit", "most"), [(UNIT, 20), (COORDINATOR, 15)])
def test_the_exposure_is_low(analyze, unit, most):
    done = subprocess.run(
        [analyze, "security", "--offline=yes", f"--threshold={most}", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze can't judge a file (it needs 250)")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


@BOTH
def test_systemd_has_nothing_to_say_against_the_unit(analyze, tmp_path, unit):
    # The program need not be installed where this is tried.
    program = "/opt/llamaforge/current/bin/llamaforge"
    text = unit.read_text(encoding="utf-8").replace(program, "/bin/sh")
    (tmp_path / unit.name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "llamaforge" in line]
    assert ours == []
