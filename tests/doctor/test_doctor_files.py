"""LF1xx: files, programs and settings, each fault on a made-up machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from doctor_machine import FOLDER, PROGRAM, PYTHON, FakeMachine, fixes

from llamaforge.doctor.checks import (
    command,
    disk,
    libraries,
    mounts,
    ownership,
    paths,
    program,
    python,
    secrets,
    settings,
    working_directory,
)
from llamaforge.doctor.finding import Severity
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject

ALL = (
    *(working_directory, paths, python, libraries, ownership, secrets, program, command),
    *(disk, mounts, settings),
)


def test_a_machine_that_is_well_has_no_findings(machine: FakeMachine) -> None:
    machine.settings("LLAMAFORGE_COORDINATOR=10.0.0.2:29400")
    machine.stat("/etc/llamaforge/token", "regular file|600|root|root|40")
    machine.says(f"runuser -u llamaforge -- {PYTHON}", '\n{"broken": {}, "versions": {}}\n')
    assert [f for module in ALL for f in machine.look(module.CHECK)] == []


# ── LF101, LF102 ──────────────────────────────────────────────────────────────────────────────


def test_a_working_directory_that_is_gone(machine: FakeMachine) -> None:
    machine.unit(WorkingDirectory="/home/ann/llama forge")
    (found,) = machine.look(working_directory.CHECK)
    assert (found.severity, found.about) == (Severity.ERROR, "/home/ann/llama forge")
    assert found.fix[0] == "install -d -o llamaforge '/home/ann/llama forge'"


def test_a_working_directory_that_is_a_file(machine: FakeMachine) -> None:
    machine.unit(WorkingDirectory="/srv/x")
    machine.stat("/srv/x", "regular file|644|root|root|3")
    (found,) = machine.look(working_directory.CHECK)
    assert "is a regular file" in found.seen


def test_a_cache_of_models_that_is_gone(machine: FakeMachine) -> None:
    machine.settings("HF_HOME=/mnt/models")
    (found,) = machine.look(paths.CHECK)
    assert (found.severity, found.about) == (Severity.ERROR, "/mnt/models")
    assert "HF_HOME is /mnt/models" in found.seen


def test_a_data_set_that_is_not_on_this_node_is_copied_from_the_master(
    machine: FakeMachine,
) -> None:
    line = "/usr/bin/taskset -c 0-3 /opt/x/bin/python3 -m torch.distributed.run d.py --dataset"
    machine.unit(
        ExecStart=f"{{ path=/x ; argv[]={line} /data/rows.jsonl ; ignore_errors=no ; }}",
        Environment="MASTER_ADDR=10.0.0.9",
    )
    (found,) = machine.look(paths.CHECK)
    assert found.about == "/data/rows.jsonl"
    assert found.fix == ("rsync -a 10.0.0.9:/data/rows.jsonl /data/rows.jsonl",)


def test_a_path_that_the_unit_hides(machine: FakeMachine) -> None:
    machine.settings("HF_HOME=/home/ann/models")
    machine.stat("/home/ann/models", FOLDER)
    (found,) = machine.look(paths.CHECK)
    assert "ProtectHome=yes" in found.seen
    assert found.fix == ("llamaforge worker install --path /home/ann/models",)
    machine.unit(ProtectHome="no")
    assert machine.look(paths.CHECK) == []


def test_the_old_name_of_the_cache_is_a_note(machine: FakeMachine) -> None:
    machine.unit(Environment="TRANSFORMERS_CACHE=/mnt/models")
    machine.stat("/mnt/models", FOLDER)
    (found,) = machine.look(paths.CHECK)
    assert (found.severity, found.about) == (Severity.NOTE, "TRANSFORMERS_CACHE")
    assert "systemctl edit" in found.fix[0]
    machine.unit()
    machine.settings("export TRANSFORMERS_CACHE=/mnt/models")
    (found,) = machine.look(paths.CHECK)
    rename = "sed -i s/TRANSFORMERS_CACHE/HF_HUB_CACHE/ /etc/llamaforge/worker.conf"
    assert found.fix == (rename,)


def test_a_path_on_a_mount_that_hangs_is_left_to_lf110(machine: FakeMachine) -> None:
    machine.settings("HF_HOME=/mnt/models")
    machine.hangs("stat -L -c %F|%a|%U|%G|%s -- /mnt/models")
    assert machine.look(paths.CHECK) == []


# ── LF103, LF104 ──────────────────────────────────────────────────────────────────────────────


def test_a_python_that_is_a_link_to_nowhere(machine: FakeMachine) -> None:
    machine.says(f"{PYTHON} -I -c", code=127)
    link = machine.path(PYTHON)
    link.parent.mkdir(parents=True)
    link.symlink_to("/usr/bin/python3.9")
    (found,) = machine.look(python.CHECK)
    assert found.seen == f"{PYTHON} is a link to /usr/bin/python3.9, which is gone"
    assert "./install.sh" in found.fix[0]


def test_a_python_that_is_missing_old_or_broken(machine: FakeMachine) -> None:
    machine.says(f"{PYTHON} -I -c", code=127)
    assert "does not exist" in machine.look(python.CHECK)[0].seen
    machine.says(f"{PYTHON} -I -c", "3.9\n")
    assert "is Python 3.9; 3.10 is needed" in machine.look(python.CHECK)[0].seen
    machine.write(PYTHON, "")
    machine.says(f"{PYTHON} -I -c", code=1, err="Fatal Python error: no encodings\n")
    assert "Fatal Python error: no encodings" in machine.look(python.CHECK)[0].seen


def test_libraries_that_are_broken_are_named(machine: FakeMachine) -> None:
    said = {"broken": {"torch": "ImportError: libtorch.so: cannot open"}, "versions": {}}
    machine.says(f"runuser -u llamaforge -- {PYTHON}", f"noise\n{json.dumps(said)}\n")
    (found,) = machine.look(libraries.CHECK)
    assert found.about == "torch"
    assert found.seen == f"{PYTHON} can't import torch: ImportError: libtorch.so: cannot open"


def test_a_crash_while_importing_is_told_with_its_signal(machine: FakeMachine) -> None:
    machine.says(f"runuser -u llamaforge -- {PYTHON}", "", -4)
    (found,) = machine.look(libraries.CHECK)
    assert "was killed by signal 4" in found.seen


def test_the_probe_finds_a_library_that_is_broken(tmp_path: Path) -> None:
    """In a real Python: the metadata of this project, and a torch that can't be imported."""
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: no such file')\n")
    (tmp_path / "llamaforge-9.dist-info").mkdir()
    needs = "Requires-Dist: torch>=2\nRequires-Dist: msgspec\nRequires-Dist: trl; extra == 'dev'\n"
    (tmp_path / "llamaforge-9.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: llamaforge\nVersion: 9\n{needs}"
    )
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = Machine().run(sys.executable, "-c", start + libraries.PROBE, seconds=30)
    said = json.loads(done.out.strip().splitlines()[-1])
    assert said["broken"] == {"torch": "ImportError: libcudart.so.12: no such file"}
    assert list(said["versions"]) == ["msgspec"]


# ── LF105 to LF108 ────────────────────────────────────────────────────────────────────────────


def test_a_cache_that_belongs_to_root(machine: FakeMachine) -> None:
    machine.stat("/var/cache/llamaforge", "directory|755|root|root|4096")
    machine.says("runuser -u llamaforge -- test -w /var/cache/llamaforge", code=1)
    (found,) = machine.look(ownership.CHECK)
    assert "the user llamaforge can't write to /var/cache/llamaforge" in found.seen
    assert "root:root with mode 0755" in found.seen
    assert found.fix[0] == "chown -R llamaforge:llamaforge /var/cache/llamaforge"


def test_settings_that_the_service_may_not_read(machine: FakeMachine) -> None:
    machine.stat("/etc/llamaforge/worker.conf", "regular file|600|root|root|10")
    machine.says("runuser -u llamaforge -- test -r /etc/llamaforge/worker.conf", code=1)
    (found,) = machine.look(ownership.CHECK)
    assert found.fix == ("chmod a+r /etc/llamaforge/worker.conf",)


def test_only_root_can_look_as_another_user(machine: FakeMachine) -> None:
    machine.uid = 1000
    machine.says("id -un", "ann\n")
    (found,) = machine.look(ownership.CHECK)
    assert found.severity is Severity.NOTE
    assert found.seen.startswith("could not look: only root can look as the user llamaforge")


def test_a_token_that_others_can_read(machine: FakeMachine) -> None:
    machine.stat("/etc/llamaforge/token", "regular file|644|root|root|40")
    (found,) = machine.look(secrets.CHECK)
    assert (found.about, found.fix) == (
        "/etc/llamaforge/token",
        ("chmod 600 /etc/llamaforge/token",),
    )


IDENTITY = "/var/lib/llamaforge/identity/identity.pem"


@pytest.mark.parametrize("shown", ["", "regular empty file|600|root|root|0"])
def test_a_machine_that_has_not_joined_and_holds_no_token(machine: FakeMachine, shown: str) -> None:
    machine.settings("LLAMAFORGE_COORDINATOR=boss:29400")
    if shown:
        machine.stat("/etc/llamaforge/token", shown)
    (found,) = machine.look(secrets.CHECK)
    assert "has not joined the fleet of boss:29400" in found.seen
    assert found.fix == ("llamaforge worker join boss:29400",)
    machine.stat(IDENTITY, "regular file|600|llamaforge|llamaforge|900")
    assert machine.look(secrets.CHECK) == []


def test_a_key_that_others_can_read(machine: FakeMachine) -> None:
    machine.stat(IDENTITY, "regular file|640|llamaforge|llamaforge|900")
    (found,) = machine.look(secrets.CHECK)
    assert (found.about, found.fix) == (IDENTITY, (f"chmod 600 {IDENTITY}",))


def test_no_token_is_needed_without_a_coordinator(machine: FakeMachine) -> None:
    assert machine.look(secrets.CHECK) == []


def test_a_folder_that_is_closed_to_the_service(machine: FakeMachine) -> None:
    machine.says("readlink -f", "/opt/llamaforge/versions/1/bin/llamaforge\n")
    machine.says(f"runuser -u llamaforge -- test -x {PROGRAM}", code=1)
    machine.says("runuser -u llamaforge -- test -x /opt/llamaforge", code=1)
    (found, other) = machine.look(program.CHECK)
    assert found.about == other.about == "/opt/llamaforge"
    assert found.fix[0] == "chmod a+rX /opt/llamaforge"
    machine.stat("/opt/llamaforge/current", "directory|700|root|root|4096")
    assert machine.look(program.CHECK)[0].fix[0] == "chmod -R a+rX /opt/llamaforge"


def test_a_program_that_is_missing(machine: FakeMachine) -> None:
    machine.says("stat -L -c %F|%a|%U|%G|%s -- /opt", code=1, err="No such file or directory")
    del machine.commands[f"stat -L -c %F|%a|%U|%G|%s -- {PROGRAM}"]
    found = machine.look(program.CHECK)[0]
    assert found.seen.endswith(f"names {PROGRAM}, which does not exist")


def test_a_command_that_sudo_does_not_find(machine: FakeMachine) -> None:
    machine.write(PROGRAM, "")
    machine.write("/usr/local/bin/llamaforge", "")
    assert machine.look(command.CHECK) == []
    machine.write("/etc/sudoers", 'Defaults   secure_path = "/sbin:/bin:/usr/sbin:/usr/bin"\n')
    (found,) = machine.look(command.CHECK)
    assert found.fix == (f"ln -s {PROGRAM} /usr/bin/llamaforge",)


# ── LF109, LF110 ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("blocks", "severity"), [(100, Severity.ERROR), (5 << 18, Severity.WARNING)]
)
def test_a_disk_that_is_full(machine: FakeMachine, blocks: int, severity: Severity) -> None:
    cache = "/var/cache/llamaforge"
    machine.says(f"stat -f -c %S %a %b %d %c -- {cache}", f"4096 {blocks} 9999999 5000 9000\n")
    machine.says(f"du -sxB1 {cache}", f"2147483648\t{cache}\n")
    (found,) = machine.look(disk.CHECK)
    assert (found.severity, found.about) == (severity, cache)
    assert "itself holds 2.0 GiB" in found.seen
    assert found.fix[0] == f"find {cache} -xdev -type f -atime +7 -delete"


def test_nothing_of_a_models_cache_is_to_be_deleted(machine: FakeMachine) -> None:
    machine.settings("HF_HOME=/mnt/cache")
    machine.says("stat -f -c %S %a %b %d %c -- /mnt/cache", "4096 100 9999999 5000 9000\n")
    (found,) = machine.look(disk.CHECK)
    assert found.about == "/mnt/cache"
    assert not any("delete" in line for line in found.fix)


def test_a_disk_without_inodes(machine: FakeMachine) -> None:
    machine.says("stat -f -c %S %a %b %d %c -- /var/log", "4096 99999999 99999999 7 9000\n")
    (found,) = machine.look(disk.CHECK)
    assert "7 of 9000 inodes" in found.seen


NFS = "36 35 0:40 / /mnt/my\\040data rw,relatime shared:1 - nfs4 nas:/data rw,vers=4.2\n"


def test_a_mount_that_hangs_is_named_with_what_needs_it(machine: FakeMachine) -> None:
    machine.write("/proc/self/mountinfo", NFS + "22 1 0:21 / /proc rw - proc proc rw\n")
    machine.hangs("stat -f -c %S %a %b %d %c -- /mnt/my data")
    (found,) = machine.look(mounts.CHECK)
    assert (found.severity, found.about) == (Severity.WARNING, "/mnt/my data")
    machine.settings("HF_HOME=/mnt/my data/models")
    machine.write("/etc/fstab", "nas:/data /mnt/my\\040data nfs4 defaults 0 0\n")
    (found,) = machine.look(mounts.CHECK)
    assert found.severity is Severity.ERROR
    assert found.seen == (
        "the nfs4 mount /mnt/my data (from nas:/data) does not answer; "
        "HF_HOME (/mnt/my data/models) is on it"
    )
    assert found.fix[-1] == "mount '/mnt/my data'"


def test_a_mount_of_fstab_that_is_not_there(machine: FakeMachine) -> None:
    machine.write("/proc/self/mountinfo", "22 1 0:21 / /proc rw - proc proc rw\n")
    machine.write(
        "/etc/fstab",
        "# nas:/old /old nfs defaults\nnas:/a /mnt/a nfs noauto,rw 0 0\n"
        "/dev/sda1 / ext4 rw 0 1\n//nas/b /mnt/b cifs rw 0 0\n",
    )
    (found,) = machine.look(mounts.CHECK)
    assert (found.about, found.fix) == ("/mnt/b", ("mount /mnt/b",))


# ── LF111 and the settings as the service sees them ───────────────────────────────────────────


def test_mistakes_of_the_settings_file_are_all_told(machine: FakeMachine) -> None:
    machine.settings("MASTER_ADR=x", "LLAMAFORGE_COORDINATOR=boss", "NODE_RANK=minus one", "oops")
    found = machine.look(settings.CHECK)
    said = " ".join(f.seen for f in found)
    assert "worker.conf:1: MASTER_ADR is not a setting" in said
    assert "did you mean MASTER_ADDR" in said
    assert "worker.conf:4: 'oops' is not NAME=value" in said
    assert "minus one" in said
    assert {f.severity for f in found} == {Severity.ERROR}


def test_a_rank_beyond_the_world_is_told(machine: FakeMachine) -> None:
    machine.unit(Environment="MASTER_ADDR=boss NODE_RANK=2 WORLD_SIZE=2")
    (found,) = machine.look(settings.CHECK)
    assert "NODE_RANK is 2, but WORLD_SIZE is 2" in found.seen


def test_nobody_to_work_for_is_a_note(machine: FakeMachine) -> None:
    (found,) = machine.look(settings.CHECK)
    assert found.severity is Severity.NOTE
    assert fixes([found]) == ["llamaforge worker install --coordinator HOST:29400"]


def test_flag_over_environment_over_file(machine: FakeMachine) -> None:
    machine.settings("MASTER_ADDR=file", "MASTER_PORT=1", "NODE_RANK=1", "export X=y")
    machine.write("/etc/more.env", "MASTER_PORT='2'\n# no\nHF_HOME='/a b'\n")
    exec_start = f"{{ path=/x ; argv[]={PROGRAM} worker run --node-rank 3 ; ignore_errors=no ; }}"
    machine.unit(
        ExecStart=exec_start,
        Environment='MASTER_ADDR=unit "HF_HOME=/c d"',
        EnvironmentFiles="/etc/more.env (ignore_errors=yes)",
    )
    subject = Subject(machine, (), {"MASTER_ADDR": "shell", "HF_HOME": "/shell"})
    got = [subject.get(n) for n in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "HF_HOME", "X")]
    assert got == ["unit", "2", "3", "/a b", "y"]
    assert subject.sources["NODE_RANK"] == "ExecStart"


def test_without_a_service_the_shell_counts(machine: FakeMachine) -> None:
    machine.unit(LoadState="not-found", ActiveState="inactive", ExecStart="", Environment="")
    machine.settings("MASTER_ADDR=file")
    subject = Subject(machine, (), {"MASTER_ADDR": "shell", "EDITOR": "vi"})
    assert subject.values == {"MASTER_ADDR": "shell"}


def test_the_python_behind_numactl_is_found(machine: FakeMachine) -> None:
    line = "/usr/bin/numactl --cpunodebind=0 /opt/e/bin/python3.12 -m torch.distributed.run x.py"
    machine.unit(ExecStart=f"{{ path=/x ; argv[]={line} ; ignore_errors=no ; }}")
    assert Subject(machine, (), {}).unit.python == "/opt/e/bin/python3.12"


def test_a_setting_is_changed_where_it_stands(machine: FakeMachine) -> None:
    machine.settings("MASTER_ADDR=old")
    machine.unit(Environment="NODE_RANK=7")
    subject = Subject(machine, (), {})
    changed = {
        "MASTER_ADDR": "sed -i 's|\\bMASTER_ADDR=.*|MASTER_ADDR=x|' /etc/llamaforge/worker.conf",
        "NODE_RANK": "systemctl edit llamaforge-worker  # Environment=NODE_RANK=x",
        "HF_HOME": "echo HF_HOME=x | sudo tee -a /etc/llamaforge/worker.conf",
        "GLOO_SOCKET_IFNAME": "echo 'export GLOO_SOCKET_IFNAME=x' | "
        "sudo tee -a /etc/llamaforge/worker.conf",
    }
    for name, command_line in changed.items():
        assert subject.change(name, "x").removeprefix("sudo ") == command_line
