"""install.sh where nothing is installed: what it says it would do, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "install.sh"


def script(*options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
    )


def test_bash_and_shellcheck_have_nothing_to_say():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not on this machine")
    subprocess.run(["shellcheck", SCRIPT], check=True)


def test_a_dry_run_says_everything_and_touches_nothing(tmp_path):
    prefix = tmp_path / "llamaforge"
    done = script("--dry-run", "--torch", "cpu", "--prefix", str(prefix), "--", "--memory", "8G")
    assert done.returncode == 0, done.stderr
    assert f"{prefix}/libraries/cpu-" in done.stdout
    assert "worker install" in done.stdout
    assert "--memory" in done.stdout
    assert done.stdout.endswith("Nothing was changed: this was a dry run.\n")
    assert not prefix.exists()


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="this machine has no systemd")
@pytest.mark.skipif(
    Path("/var/lib/llamaforge-install").exists(), reason="this machine has the service installed"
)
@pytest.mark.parametrize(
    ("options", "services"),
    [
        ((), ["worker"]),
        (("--coordinator",), ["coordinator", "worker"]),
        (("--coordinator", "--no-worker"), ["coordinator"]),
        (("--no-worker",), []),
        (("--no-service",), []),
    ],
)
def test_the_services_that_are_asked_for_are_installed(tmp_path, options, services):
    where = ("--dry-run", "--torch", "cpu", "--prefix", str(tmp_path / "x"))
    done = script(*where, *options)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if "would run: llamaforge" in line]
    assert [line[3] for line in lines] == services


def test_removing_takes_only_what_was_made_from_a_folder_that_holds_other_things(tmp_path):
    done = script("--uninstall", "--dry-run", "--prefix", str(tmp_path))
    assert done.returncode == 0, done.stderr
    removed = [line for line in done.stdout.splitlines() if "'-rf'" in line]
    assert removed
    assert f"'{tmp_path}/versions'" in removed[0]
    assert f"'{tmp_path}'" not in removed[0]


def test_a_process_that_ends_while_they_are_listed_is_no_failure(tmp_path):
    program(tmp_path, "cat", 'case "$1" in /proc/*) exit 1;; *) exec /bin/cat "$@";; esac')
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = script("--dry-run", "--torch", "cpu", "--prefix", str(tmp_path / "x"), PATH=path)
    assert done.returncode == 0, done.stderr
    assert "Nothing was changed" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs for the whole machine")
def test_nobody_else_can_hold_the_lock_and_keep_root_from_installing(tmp_path):
    (tmp_path / ".lock").touch(0o644)
    (tmp_path / "previous").symlink_to("versions/1")
    (tmp_path / "versions/1").mkdir(parents=True)
    (tmp_path / "versions/1/complete").touch()
    script("--rollback", "--no-service", "--prefix", str(tmp_path))
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o600


def test_the_same_source_has_the_same_name_and_another_torch_other_libraries(tmp_path):
    def planned(torch: str, path: str = "") -> list[str]:
        environ = {"PATH": f"{path}:{os.environ['PATH']}"} if path else {}
        done = script("--dry-run", "--torch", torch, "--prefix", str(tmp_path / "x"), **environ)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if "would build" in line]

    assert planned("cpu") == planned("cpu")
    if shutil.disk_usage(tmp_path).free < 11e9:
        pytest.skip("torch for CUDA needs 10 GB free, and this disk has less")
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA H200, 580.95'")
    assert planned("cuda", str(tmp_path))[0] != planned("cpu")[0]
    assert planned("auto", str(tmp_path)) == planned("cuda", str(tmp_path))


def program(folder: Path, name: str, line: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{line}\n")
    (folder / name).chmod(0o755)


def test_an_old_driver_is_refused_before_anything_is_downloaded(tmp_path):
    program(tmp_path, "nvidia-smi", "echo 'Tesla T4, 535.183.01'")
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = script("--dry-run", "--torch", "cuda", "--prefix", str(tmp_path / "x"), PATH=path)
    assert done.returncode == 1
    assert "535.183.01" in done.stderr
    assert "--torch cpu" in done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--torsh", "cpu"), "--torsh"),
        (("--torch",), "--torch needs a value"),
        (("--torch", "tpu"), "tpu"),
        (("--prefix", "here", "--dry-run"), "here"),
        (("--prefix", "/home/me/x", "--dry-run"), "/home/me/x"),
        (("--purge",), "--uninstall --purge"),
        (("--rollback", "--uninstall", "--dry-run"), "contradict"),
        (("--uninstall", "--dry-run", "--", "--memory", "8G"), "--uninstall removes it"),
        (("--no-service", "--dry-run", "--", "--memory", "8G"), "--no-service installs none"),
        (("--no-worker", "--dry-run", "--", "--memory", "8G"), "--no-worker installs none"),
        (("--coordinator", "--no-service", "--dry-run"), "--coordinator installs a service"),
        (("--coordinator", "--rollback", "--dry-run"), "--coordinator installs a service"),
        (("--rollback", "--dry-run", "--prefix", "/nowhere"), "/nowhere"),
        (("--dry-run", "--python", "/nowhere/python"), "/nowhere/python"),
    ],
)
def test_a_mistake_is_exit_code_2_and_named(options, named):
    done = script(*options)
    assert done.returncode == 2
    assert named in done.stderr


def test_a_python_without_venv_gets_the_line_to_type(tmp_path):
    program(tmp_path, "python", 'case "$2" in *venv*) exit 1;; *) exec python3 "$@";; esac')
    done = script(
        "--dry-run", "--python", str(tmp_path / "python"), "--prefix", str(tmp_path / "x")
    )
    assert done.returncode in (1, 2)
    assert "venv" in done.stderr or "home folder" in done.stderr


def test_a_python_that_is_too_old_is_named(tmp_path):
    program(tmp_path, "python", 'test "$1" = --version && echo Python 3.8.1; exit 1')
    done = script("--dry-run", "--python", str(tmp_path / "python"))
    assert done.returncode == 2
    assert "Python 3.8.1" in done.stderr
    assert "3.10 to 3.14" in done.stderr


def test_a_machine_without_a_gpu_is_told_so_in_words(tmp_path):
    done = script("--dry-run", "--torch", "cuda", "--prefix", str(tmp_path / "x"))
    if done.returncode == 0:
        pytest.skip("this machine has a GPU")
    assert "no nvidia-smi on this machine" in done.stderr or "sees no GPU" in done.stderr
    assert "install.sh: line" not in done.stderr


@pytest.mark.skipif(
    Path("/var/lib/llamaforge-install").exists(), reason="this machine has the service installed"
)
def test_what_an_earlier_removal_has_left_can_be_purged_without_the_program(tmp_path):
    done = script("--uninstall", "--purge", "--dry-run", "--prefix", str(tmp_path / "x"))
    assert done.returncode == 0, done.stderr
    assert "there is no LlamaForge in" in done.stdout
    assert "'/etc/llamaforge' '/var/lib/llamaforge' '/var/cache/llamaforge'" in done.stdout
