"""The arrows between rooms, from the table in ARCHITECTURE.md and the syntax trees of the code."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "llamaforge"
FILES = sorted(PACKAGE.rglob("*.py"))

TORCH_AND_WHAT_IMPORTS_IT = {
    "accelerate",
    "peft",
    "torch",
    "transformers",
    "trl",
}


# ── the table ─────────────────────────────────────────────────────────────────────────────────


def read_table(text: str) -> dict[str, set[str]]:
    """Room to the rooms that it may import, from the table under `## Rooms`."""
    section = text.split("\n## Rooms\n", 1)[1].split("\n## ", 1)[0]
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    rows = {row[0].strip("`/"): row[2] for row in cells[2:]}
    direct = {room: _named(cell, rows) for room, cell in rows.items()}
    return {
        room: direct[room] | (_below(direct[room], direct) if "and below" in cell else set())
        for room, cell in rows.items()
    }


def _named(cell: str, rooms: dict[str, str]) -> set[str]:
    names = set(re.findall(r"`(\w+)`", cell))
    if cell.startswith("everything except"):
        return set(rooms) - names
    return names | ({"base"} if re.search(r"\bbase\b", cell) else set())


def _below(rooms: set[str], direct: dict[str, set[str]]) -> set[str]:
    reached = set(rooms)
    while more := {below for room in reached for below in direct[room]} - reached:
        reached |= more
    return reached


def test_the_table_is_read_as_a_person_reads_it():
    table = read_table(
        "\n## Rooms\n| room | what | may import |\n|---|---|---|\n"
        "| `top/` | x | everything except `odd` |\n| `mid/` | x | `low` and below |\n"
        "| `low/` | x | `floor`, base |\n| `floor/` | x | base |\n| base | x | – |\n"
        "| `odd/` | x | `low`, base |\n\n## Next\n| not | a | room |\n"
    )
    assert table == {
        "top": {"top", "mid", "low", "floor", "base"},
        "mid": {"low", "floor", "base"},
        "low": {"floor", "base"},
        "floor": {"base"},
        "base": set(),
        "odd": {"low", "base"},
    }


ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
TABLE = read_table(ARCHITECTURE)


# ── the code ──────────────────────────────────────────────────────────────────────────────────


def imported(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a module imports, wherever in it."""
    package = module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def room_of(name: str) -> str:
    """The room of a dotted name in llamaforge; modules at the top are base."""
    first = name.split(".")[1] if "." in name else ""
    return first if first in TABLE else "base"


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_imports_are_found_wherever_they_stand():
    source = "import a.b\nfrom ..c import d\ndef f():\n    from .e import g\n    import h\n"
    found = [name for _, name in imported(source, "llamaforge.room.module")]
    assert sorted(found) == ["a.b", "h", "llamaforge.c.d", "llamaforge.room.e.g"]


def test_every_folder_is_a_room_of_the_table_and_every_room_a_folder():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    base_row = re.search(r"^\| base \|.*$", ARCHITECTURE, re.MULTILINE)
    assert base_row is not None
    assert folders == set(TABLE) - {"base"} | set(re.findall(r"`(\w+)/`", base_row[0]))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_arrows_between_rooms_point_down(file: Path):
    module = module_of(file)
    room = room_of(module)
    if module == "llamaforge.__main__":
        room = "cli"
    wrong = [
        f"{file.relative_to(ROOT)}:{line} ({room}) imports {name}"
        for line, name in imported(file.read_text(encoding="utf-8"), module)
        if name.split(".")[0] == "llamaforge" and room_of(name) not in TABLE[room] | {room}
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if room_of(module_of(file)) != "train"],
    ids=lambda file: str(file.relative_to(PACKAGE)),
)
def test_only_the_engine_names_torch(file: Path):
    found = imported(file.read_text(encoding="utf-8"), module_of(file))
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for line, name in found
        if name.split(".")[0] in TORCH_AND_WHAT_IMPORTS_IT
    ]
    assert wrong == []


# ── a fresh interpreter ───────────────────────────────────────────────────────────────────────

IMPORT_EVERYTHING = """
import importlib, json, os, signal, sys, threading, warnings

modules, package = json.loads(sys.argv[1]), sys.argv[2]
others = json.loads(sys.argv[3])
for name in others:          # what libraries do when imported is theirs
    importlib.import_module(name)

def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "umask": (lambda mask: (os.umask(mask), mask)[1])(os.umask(0o22)),
        "recursion": sys.getrecursionlimit(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }

acts = []
def watch(event, arguments):
    acting = event in ("socket.bind", "socket.connect", "subprocess.Popen", "os.fork", "os.mkdir",
                       "os.remove", "os.rename", "os.putenv", "os.chmod", "shutil.rmtree")
    writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (
        os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if acting or writing:
        acts.append(f"{event} {arguments}")

before = state()
sys.addaudithook(watch)
for name in modules:
    importlib.import_module(name)
done = list(acts)
after = state()
changed = {key: [before[key], after[key]] for key in before if before[key] != after[key]}
print(json.dumps({"acts": done, "changed": changed, "loaded": sorted(sys.modules)}))
"""


def libraries(files: list[Path]) -> list[str]:
    """What the modules import at their top from outside the package."""
    names = set()
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return sorted(name for name in names if name.split(".")[0] not in ("llamaforge", "tomllib"))


@pytest.fixture(scope="module")
def fresh() -> dict[str, object]:
    """What happened when a new interpreter imported every module outside the engine."""
    outside = [file for file in FILES if room_of(module_of(file)) != "train"]
    modules = [module_of(file) for file in outside if file.name != "__main__.py"]
    command = [sys.executable, "-B", "-c", IMPORT_EVERYTHING]
    arguments = [json.dumps(modules), str(PACKAGE), json.dumps(libraries(outside))]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said: dict[str, object] = json.loads(done.stdout)  # nothing else was printed
    return said


def test_importing_all_but_the_engine_imports_no_torch(fresh):
    loaded = {name.split(".")[0] for name in fresh["loaded"]}
    assert "llamaforge" in loaded
    assert loaded & (TORCH_AND_WHAT_IMPORTS_IT | {"matplotlib", "huggingface_hub"}) == set()


def test_importing_does_nothing(fresh):
    assert fresh["acts"] == []
    assert fresh["changed"] == {}
