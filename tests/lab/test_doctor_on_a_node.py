"""Doctor on a real machine: each fault is caused, named, and mended by the printed commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_patient import Cause, Patient

from lab import Lab

UNIT = "llamaforge-worker"
DROP_IN = "/etc/systemd/system/llamaforge-worker.service.d/90-test.conf"
CONF = "/etc/llamaforge/worker.conf"
HANG = Path(__file__).with_name("hung_mount.py")


@pytest.fixture(scope="module")
def patient(lab: Lab) -> Patient:
    """A node whose worker waits for a master that is off."""
    node = lab.add("node1", image="installed")
    node.boot()
    node.run("llamaforge", "worker", "install", "--master-addr", node.address, "--node-rank", "0")
    node.wait_for(
        lambda: node.run("systemctl", "is-active", UNIT, check=False).returncode == 0,
        seconds=20,
        what="worker is active",
    )
    return Patient(node)


@pytest.fixture(autouse=True)
def same_settings(patient: Patient) -> Iterator[None]:
    """What a test adds to the settings is gone after it."""
    before = patient.node.read(CONF)
    yield
    patient.node.write(CONF, before)


def test_a_node_that_is_well(patient: Patient) -> None:
    """All checks, torch's import included: nothing worse than a note."""
    assert [f for f in patient.ask() if f["severity"] != "note"] == []


def test_files_and_rights(patient: Patient) -> None:
    patient.setting("HF_HOME=/mnt/models")
    folder = "/etc/systemd/journald.conf.d"
    text = "[Journal]\\nStorage=volatile\\n"
    volatile = f"mkdir -p {folder}; printf '{text}' > {folder}/90-test.conf"
    patient.node.write("/etc/llamaforge/token", "x" * 40, mode=0o600)
    patient.mends(
        [
            Cause("LF101", "/srv/gone", drop_in("WorkingDirectory=/srv/gone")),
            Cause("LF102", "/mnt/models", "rm -rf /mnt/models"),
            Cause("LF105", "/var/cache/llamaforge", "chown root:root /var/cache/llamaforge"),
            Cause("LF106", "/etc/llamaforge/token", "chmod 644 /etc/llamaforge/token"),
            Cause("LF107", "/opt/llamaforge", "chmod 700 /opt/llamaforge"),
            Cause("LF108", "llamaforge", "rm /usr/local/bin/llamaforge", "warning"),
            Cause("LF204", "journald", volatile, "note"),
        ]
    )  # fmt: skip
    patient.node.shell(f"rm {DROP_IN}; systemctl daemon-reload; systemctl restart {UNIT}")


def test_a_data_set_that_is_not_on_this_node(patient: Patient) -> None:
    line = (
        "/opt/llamaforge/current/bin/python3 -m torch.distributed.run --nproc_per_node=1 "
        "/srv/llamaforge/distributed_train.py --dataset /data/rows.jsonl"
    )
    broken = drop_in(f"ExecStart=\nExecStart=/usr/bin/taskset -c 0 {line}")
    patient.names([Cause("LF102", "/data/rows.jsonl", broken, repairs=undone())])


def drop_in(lines: str) -> str:
    """Puts directives into a drop-in of the unit."""
    text = f"[Service]\n{lines}\n".replace("\n", "\\n")
    return f"printf '{text}' > {DROP_IN}; systemctl daemon-reload"


def undone() -> str:
    return f"rm {DROP_IN}; systemctl daemon-reload"


def test_python_torch_disk_and_settings(patient: Patient) -> None:
    patient.names(
        [
            Cause("LF109", "/var/cache/llamaforge", "mount -t tmpfs -o size=20M x "
                  "/var/cache/llamaforge", repairs="umount /var/cache/llamaforge"),
            Cause("LF111", CONF, f"echo MASTER_ADR=x >> {CONF}", repairs=f"sed -i '$d' {CONF}"),
        ]
    )  # fmt: skip
    library = (
        "$(find -L /opt/llamaforge/current/lib /opt/llamaforge -name libtorch_cpu.so | head -1)"
    )
    patient.names(
        [
            Cause("LF104", "torch", f"mount --bind /dev/null {library}",
                  repairs=f"umount {library}"),
        ]
    )  # fmt: skip
    gone = "/srv/env/bin/python3"
    makes = f"mkdir -p /srv/env/bin; ln -s /usr/bin/python3.7 {gone}"
    line = f"ExecStart=\nExecStart={gone} -m torch.distributed.run x.py"
    patient.names([Cause("LF103", gone, f"{makes}; {drop_in(line)}", repairs=undone())])


def test_a_mount_that_hangs(patient: Patient) -> None:
    """A file server that never answers: named at once, and never in doctor's own way."""
    server = patient.node.spawn("python3", "/srv/llamaforge/tests/lab/hung_mount.py", "/mnt/nas")
    assert server.stdout is not None
    assert server.stdout.readline() == "mounted\n"
    patient.setting("HF_HOME=/mnt/nas/models")
    found = patient.ask("LF102", "LF105", "LF109", "LF110")
    (named,) = [f for f in found if f["code"] == "LF110"]
    assert (named["about"], named["severity"]) == ("/mnt/nas", "error")
    assert "HF_HOME (/mnt/nas/models) is on it" in named["seen"]
    patient.mend([named])
    assert patient.ask("LF110") == []


def test_the_service(patient: Patient) -> None:
    for breaks in (
        f"systemctl stop {UNIT}",
        f"systemctl disable {UNIT}",
        f"systemctl kill --kill-whom=main -s KILL {UNIT}; systemctl stop {UNIT}",
    ):
        severity = "warning" if "disable" in breaks else "error"
        patient.mends([Cause("LF201", f"{UNIT}.service", breaks, severity)])
    node = patient.node
    node.shell(drop_in("User=nobody-here") + f"; systemctl restart {UNIT} || true")
    (found,) = patient.ask("LF201")
    assert "217" in found["seen"], found
    node.shell(undone() + f"; systemctl reset-failed {UNIT}; systemctl restart {UNIT}")
    node.shell(f"echo LLAMAFORGE_RANKS=many >> {CONF}; systemctl restart {UNIT} || true")
    node.wait_for(
        lambda: node.run("systemctl", "is-failed", UNIT, check=False).returncode == 0,
        seconds=20,
        what="worker gives up on wrong settings",
    )
    found = patient.ask("LF201", "LF111")
    assert any(f["code"] == "LF201" and "a restart can't help" in f["seen"] for f in found), found
    assert any(f["code"] == "LF111" and "many" in f["seen"] for f in found), found
    node.shell(f"sed -i '$d' {CONF}; systemctl reset-failed {UNIT}; systemctl restart {UNIT}")


def test_a_port_that_somebody_else_has(patient: Patient) -> None:
    """MASTER_PORT on the master's own host, where torchrun's store must listen."""
    holder = patient.node.spawn("python3", "-m", "http.server", "29500")
    patient.node.wait_for(
        lambda: patient.reaches("127.0.0.1", 29500), seconds=10, what="the port is taken"
    )
    (found,) = patient.ask("LF202")
    assert (found["about"], found["severity"]) == ("29500", "error")
    assert "is in use by python3" in found["seen"]
    patient.mend([found])
    assert patient.ask("LF202") == []
    assert holder.wait(5) is not None


def test_active_and_not_reachable(patient: Patient) -> None:
    """Once because it listens on loopback alone, once because it is frozen."""
    patient.setting("LLAMAFORGE_PEER_HOST=127.0.0.1")
    patient.node.shell(f"systemctl restart {UNIT}")
    (found,) = patient.ask("LF203")
    assert f"and not on {patient.node.address}" in found["seen"]
    patient.mend([found])
    assert patient.ask("LF203") == []
    patient.node.shell(f"systemctl kill --kill-whom=main -s STOP {UNIT}")
    (found,) = patient.ask("LF203")
    assert (found["severity"], "answers nothing" in found["seen"]) == ("error", True)
    patient.node.shell(f"systemctl kill --kill-whom=main -s CONT {UNIT}")


def test_memory(patient: Patient) -> None:
    """A process of the unit goes beyond its limit; the kernel's own counter tells."""
    node = patient.node
    group = f"/system.slice/{UNIT}.service"
    node.shell(f"systemctl set-property --runtime {UNIT}.service MemoryMax=300M")
    hog = "x = bytearray(1 << 20)\nkeep = []\nwhile True: keep.append(bytearray(64 << 20))"
    node.shell(
        f"for f in /sys/fs/cgroup/memory{group}/cgroup.procs /sys/fs/cgroup{group}/cgroup.procs; "
        f"do if [ -e $f ]; then echo $$ > $f; break; fi; done; python3 -c '{hog}'",
        check=False,
    )
    found = [f for f in patient.ask("LF401") if f["severity"] == "error"]
    assert [f["about"] for f in found] == [f"{UNIT}.service"]
    assert "reached its MemoryMax=0.3 GiB" in found[0]["seen"]
    patient.mend(found)
    assert [f for f in patient.ask("LF401") if f["severity"] == "error"] == []


def test_without_root_it_says_what_it_could_not_see(patient: Patient) -> None:
    patient.node.shell("id ann || useradd -m ann")
    found = patient.ask("LF105", "LF301", user="ann")
    assert {f["code"] for f in found} == {"LF105", "LF301"}
    assert all(f["seen"].startswith("could not look: ") and "root" in f["seen"] for f in found)
