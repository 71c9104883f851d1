"""When an update restarts the worker, and when it waits for a job."""

from __future__ import annotations

from pathlib import Path

import pytest
from service_machine import FakeMachine

from llamaforge.errors import LlamaForgeError
from llamaforge.service.places import on_machine
from llamaforge.service.restart import WISH, Running, Turn, carry_out, decide, look

PLACES = on_machine()
IDLE = Running(active=True)
CLASSIC = Running(active=True, same_program=False, classic_job=True)
OTHER_TORCH = Running(active=True, same_program=False, same_torch=False)


@pytest.mark.parametrize(
    ("running", "changed", "now", "turn"),
    [
        (Running(active=False), False, False, Turn.START),
        (IDLE, False, False, Turn.NOTHING),
        (IDLE, False, True, Turn.NOTHING),
        (IDLE, True, False, Turn.RESTART),
        (Running(active=True, same_program=False), False, False, Turn.RESTART),
        (CLASSIC, False, False, Turn.WHEN_IDLE),
        (CLASSIC, False, True, Turn.RESTART),
        (OTHER_TORCH, False, False, Turn.WHEN_IDLE),
        (OTHER_TORCH, False, True, Turn.RESTART),
    ],
)
def test_what_is_worth_waiting_for(running, changed, now, turn):
    assert decide(running, changed=changed, now=now)[0] is turn


def test_another_torch_at_once_says_what_may_fall():
    assert "same numbers" in decide(OTHER_TORCH, changed=False, now=True)[1]


def version(root: Path, name: str, torch: str) -> Path:
    folder = root / "opt/llamaforge/versions" / name
    libraries = root / "opt/llamaforge/libraries" / torch
    (libraries / f"lib/python3.11/site-packages/torch-{torch}.dist-info").mkdir(parents=True)
    folder.mkdir(parents=True)
    (folder / "libraries").symlink_to(libraries)
    return folder


def process(root: Path, pid: int, *words: str, children: str = "") -> None:
    folder = root / "proc" / str(pid)
    (folder / "task" / str(pid)).mkdir(parents=True)
    (folder / "cmdline").write_text("\0".join(words) + "\0")
    (folder / "task" / str(pid) / "children").write_text(children)


@pytest.mark.parametrize(("new", "same"), [("2.13.0+cpu", True), ("2.14.0+cpu", False)])
def test_program_torch_and_job_are_seen(tmp_path, new, same):
    machine = FakeMachine(tmp_path, show="ActiveState=active\nMainPID=7\n")
    old = version(tmp_path, "a", "2.13.0+cpu")
    if not same:
        version(tmp_path, "b", new)
    current = tmp_path / "opt/llamaforge/current"
    current.symlink_to("versions/a" if same else "versions/b")
    process(tmp_path, 7, f"{old}/bin/python3", "x/llamaforge", "worker", "run", children="8 9 ")
    process(tmp_path, 8, "sleep", "1")
    process(tmp_path, 9, "python", "-m", "torch.distributed.run", "x")
    expected = Running(active=True, same_program=same, same_torch=same, classic_job=True)
    assert look(machine, PLACES) == expected


def test_a_service_that_is_not_there_is_not_active(tmp_path):
    machine = FakeMachine(tmp_path, show="ActiveState=inactive\nMainPID=0\n")
    assert look(machine, PLACES) == Running(active=False)


def test_waiting_is_a_file_that_the_worker_sees(tmp_path):
    machine = FakeMachine(tmp_path)
    machine.make_folders("/run/llamaforge")
    carry_out(Turn.WHEN_IDLE, PLACES, machine)
    assert machine.at(WISH).exists()
    assert not any("restart" in line for line in machine.ran)


def test_a_service_that_does_not_start_is_an_error_with_the_next_command(tmp_path):
    machine = FakeMachine(tmp_path)
    machine.fails = {"restart"}
    with pytest.raises(LlamaForgeError) as error:
        carry_out(Turn.RESTART, PLACES, machine)
    assert "journalctl" in error.value.hint
