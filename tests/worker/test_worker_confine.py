"""What confined processes can and can't do: a hostile one, and what ranks need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from llamaforge import landlock
from llamaforge.spec.fleet import worker_settings
from llamaforge.worker.confine import Confinement

needs_landlock = pytest.mark.skipif(
    not landlock.version(), reason=landlock.why_not() or "the kernel has Landlock"
)

HEAD = """
import ctypes, json, os, sys, tempfile
from pathlib import Path
place = json.loads(sys.argv[1])
worker = place["worker"]
said = {}
def attempt(name):
    def decide(act):
        try:
            act()
            said[name] = "done"
        except OSError as why:
            said[name] = type(why).__name__
    return decide
def traced(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
"""
HOSTILE = """
@attempt("read the key")
def _(): Path(place["key"]).read_bytes()
@attempt("read the key through a link")
def _():
    link = Path(place["job"], "link"); link.symlink_to(place["key"]); link.read_bytes()
@attempt("link the key to a place of its own")
def _(): os.link(place["key"], Path(place["job"], "hard"))
@attempt("move the key")
def _(): os.rename(place["key"], Path(place["job"], "moved"))
@attempt("unlink the key")
def _(): os.unlink(place["key"])
@attempt("read the token")
def _(): Path(place["token"]).read_bytes()
@attempt("read the credential")
def _(): Path(place["credential"]).read_bytes()
@attempt("read another job's file")
def _(): Path(place["other"]).read_bytes()
@attempt("open the worker's lock")
def _(): open(place["lock"], "ab")
@attempt("write into a blob")
def _():
    os.chmod(place["blob"], 0o644); open(place["blob"], "wb")
@attempt("cut off a blob")
def _(): os.truncate(place["blob"], 0)
@attempt("unlink a blob")
def _(): os.unlink(place["blob"])
@attempt("add a blob")
def _(): Path(place["blob"] + "x").write_bytes(b"")
@attempt("write elsewhere")
def _(): Path(place["elsewhere"], "x").write_bytes(b"")
@attempt("the worker's environment")
def _(): Path(f"/proc/{worker}/environ").read_bytes()
@attempt("the worker's memory")
def _(): open(f"/proc/{worker}/mem", "rb").read(1)
@attempt("the worker's open files")
def _(): os.open(f"/proc/{worker}/fd/0", os.O_RDONLY)
@attempt("trace the worker")
def _(): traced(worker)
@attempt("signal the worker")
def _(): os.kill(worker, 0)
@attempt("the same from a child")
def _():
    import subprocess
    if subprocess.run(["cat", place["key"]], capture_output=True).returncode: raise PermissionError
print(json.dumps(said))
"""
HONEST = """
@attempt("read a blob")
def _(): assert Path(place["blob"]).read_bytes() == b"blob"
@attempt("write to its folder")
def _(): Path(place["job"], "sub").mkdir(); Path(place["job"], "sub/x").write_text("x")
@attempt("rename between its folders")
def _(): os.rename(Path(place["job"], "sub/x"), Path(place["job"], "y"))
@attempt("keep tokens")
def _(): Path(place["tokens"], "x").write_text("x")
@attempt("read the bundle")
def _(): assert Path(place["job"], "bundle/resume").read_text() == "state"
@attempt("list")
def _(): os.listdir("/")
@attempt("temporary file")
def _(): tempfile.TemporaryFile().write(b"x")
@attempt("null")
def _(): open("/dev/null", "wb").write(b"x")
@attempt("shared memory")
def _():
    from multiprocessing.shared_memory import SharedMemory
    memory = SharedMemory(create=True, size=64); memory.close(); memory.unlink()
@attempt("write and run memory")
def _():
    import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
@attempt("children")
def _():
    import subprocess
    child = subprocess.Popen(["sleep", "60"]); child.terminate(); child.wait()
@attempt("own memory")
def _(): Path("/proc/self/environ").read_bytes()
@attempt("listen")
def _():
    import socket; socket.create_server(("127.0.0.1", 0)).close()
print(json.dumps(said))
"""


class Place:
    """A worker's folders, with something to steal in each."""

    def __init__(self, root: Path) -> None:
        self.state, self.cache = root / "state", root / "cache"
        self.job = self.state / "jobs" / "mine.1"
        self.credentials = root / "credentials"
        self.file(self.state / "identity" / "identity.pem", "key")
        self.file(self.state / "worker.lock", "")
        self.file(self.state / "jobs" / "other.1" / "rows", "rows")
        self.file(self.cache / "blobs" / "ab", "blob").chmod(0o444)
        self.file(self.credentials / "token", "token")
        self.file(root / "token", "token")
        self.file(self.state / "elsewhere" / "x", "")
        (self.job / "bundle").mkdir(parents=True)
        resume = self.file(self.state / "checkpoints" / "state.json", "state")
        (self.job / "bundle" / "resume").symlink_to(resume)
        self.settings = worker_settings(
            {
                "state_dir": str(self.state),
                "cache_dir": str(self.cache),
                "token_file": str(root / "token"),
            },
            {},
        )
        self.told = {
            "worker": os.getpid(),
            "job": str(self.job),
            "key": str(self.state / "identity" / "identity.pem"),
            "lock": str(self.state / "worker.lock"),
            "other": str(self.state / "jobs" / "other.1" / "rows"),
            "token": str(root / "token"),
            "credential": str(self.credentials / "token"),
            "blob": str(self.cache / "blobs" / "ab"),
            "tokens": str(self.cache / "tokens"),
            "elsewhere": str(self.state / "elsewhere"),
        }

    @staticmethod
    def file(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
        return path

    def run(self, body: str, *, cache: bool = False) -> dict[str, str]:
        environment = dict(os.environ)
        worker = {**environment, "CREDENTIALS_DIRECTORY": str(self.credentials)}
        confinement = Confinement(self.settings, environment, worker)
        if confinement.scratch:
            environment["TMPDIR"] = str(confinement.scratch)
        command = [sys.executable, "-c", HEAD + body, json.dumps(self.told)]
        with confinement.entrance([self.job], cache=cache) as enter:
            done = subprocess.run(
                command, env=environment, preexec_fn=enter, stdout=subprocess.PIPE, check=True
            )
        said: dict[str, str] = json.loads(done.stdout)
        return said


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@needs_landlock
def test_a_hostile_script_gets_nothing(place: Place) -> None:
    said = place.run(HOSTILE)
    assert len(said) == 20
    got = {name for name, how in said.items() if how == "done"}
    old = {"cut off a blob"} if landlock.version() < 3 else set()
    old |= {"signal the worker"} if landlock.version() < 6 else set()
    assert got <= old
    assert Path(place.told["key"]).read_text() == "key"  # type: ignore[arg-type]


@needs_landlock
def test_an_honest_rank_finds_what_it_needs(place: Place) -> None:
    said = place.run(HONEST)
    assert {name: how for name, how in said.items() if how != "done"} == {}


@needs_landlock
def test_the_classic_way_may_fill_the_cache(place: Place) -> None:
    body = """
@attempt("add a blob")
def _(): Path(place["blob"] + "x").write_bytes(b"")
@attempt("read the key")
def _(): Path(place["key"]).read_bytes()
print(json.dumps(said))
"""
    assert place.run(body, cache=True) == {"add a blob": "done", "read the key": "PermissionError"}


@needs_landlock
def test_an_administrator_can_open_more(place: Place, tmp_path: Path) -> None:
    more = f"{place.state / 'elsewhere'}:{tmp_path / 'missing'}"
    place.settings = msgspec.structs.replace(place.settings, writable=more)
    body = """
@attempt("write elsewhere")
def _(): Path(place["elsewhere"], "x").write_bytes(b"")
@attempt("read the key")
def _(): Path(place["key"]).read_bytes()
print(json.dumps(said))
"""
    assert place.run(body) == {"write elsewhere": "done", "read the key": "PermissionError"}


def test_without_landlock_it_runs_as_before(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    body = """
@attempt("read the key")
def _(): Path(place["key"]).read_bytes()
print(json.dumps(said))
"""
    assert place.run(body) == {"read the key": "done"}


def test_temporary_files_have_a_place_of_their_own_beside_a_hidden_state(tmp_path: Path) -> None:
    settings = worker_settings({"state_dir": str(tmp_path / "state")}, {})
    inside = Confinement(settings, {"TMPDIR": str(tmp_path)}, {})
    assert inside.scratch == tmp_path / "state" / "tmp"
    outside = Confinement(settings, {"TMPDIR": str(tmp_path / "other")}, {})
    assert outside.scratch is None
