"""A script's folder on the submitting machine: what of it travels, and what must not.

Left out is what `.llamaforgeignore` names or, without it, what git would ignore, and always what
no script needs: version control, byte code, virtual environments, `.env`, earlier results. A
folder that is far too big is refused before it is read, with its biggest files named.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from llamaforge.bundle import code_layout
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import IntegrityError, UserError
from llamaforge.spec.script import CODE

IGNORE_FILE = ".llamaforgeignore"
ALWAYS = (
    *(".git/", ".git", ".hg/", ".svn/", "__pycache__/", "*.py[co]", ".ipynb_checkpoints/"),
    *("/runs/", ".venv/", ".env", ".netrc", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/"),
)
"""Left out unless an ignore file says otherwise (`!.env`): of no use there, or secret."""
SIZE_LIMIT = 1 << 30
"""Bytes of a folder, where nobody asks for more."""
FILES_LIMIT = 20_000
NAMED = 5
"""Biggest files that an error names."""
COPIED_BYTES = 16 << 20
"""Smaller files are kept as they are now; a bigger one must not change until it has been sent."""


@dataclass(frozen=True, kw_only=True)
class CodeFile:
    """One file that travels."""

    path: str
    """Relative to the folder, with `/`."""
    size: int
    """Bytes."""
    executable: bool


@dataclass(frozen=True, kw_only=True)
class CodeFolder:
    """What of a folder travels."""

    root: Path
    files: tuple[CodeFile, ...]
    """By path."""
    links: dict[str, str] = field(default_factory=dict)
    """Symbolic links and where they lead, relative to their own place."""
    left_out: int = 0
    """Files and folders that are ignored; one that is not entered counts once."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)

    @property
    def executable(self) -> tuple[str, ...]:
        """Files that may be run as programs."""
        return tuple(file.path for file in self.files if file.executable)

    def has(self, path: str) -> bool:
        """Whether a file or link of this path travels."""
        return path in self.links or any(file.path == path for file in self.files)

    def biggest(self) -> list[CodeFile]:
        """The biggest files, the very biggest first."""
        return sorted(self.files, key=lambda file: -file.size)[:NAMED]


def look(folder: Path, *, size_limit: int = SIZE_LIMIT) -> CodeFolder:
    """Finds out what of a folder travels; reads no file but those that say what to ignore.

    Raises:
        UserError: there is no such folder, it is too big, a link leads out of it, or something in
            it can't be read.
    """
    root = Path(os.path.realpath(folder))
    if not root.is_dir():
        raise UserError(f"{folder} is not a folder", hint="name another one with --folder")
    walk = _Walk(root)
    try:
        walk.enter("", _above(root))
    except OSError as why:
        raise UserError(
            f"{why.filename or folder} can't be read: {why.strerror or why}",
            hint=f"give yourself the right to, or name it in {folder / IGNORE_FILE}",
        ) from why
    walk.files.sort(key=lambda file: file.path)
    found = CodeFolder(root=root, files=tuple(walk.files), links=walk.links, left_out=walk.left_out)
    _check_size(found, size_limit)
    return found


def add(found: CodeFolder, store: BlobStore) -> Manifest:
    """Puts the files into the store.

    Raises:
        UserError: a file can't be read, or has gone.
        IntegrityError: a file changed while it was read.
    """
    entries = []
    for file in found.files:
        path = found.root / file.path
        try:
            copied = file.size <= COPIED_BYTES
            sha256, size = store.add_bytes(path.read_bytes()) if copied else store.add_file(path)
        except OSError as why:
            raise UserError(
                f"{path} can't be read: {why.strerror or why}",
                hint=f"if it is not needed, name it in {found.root / IGNORE_FILE}",
            ) from why
        entries.append(Entry(path=f"{CODE}/{file.path}", sha256=sha256, size=size))
    return Manifest(entries=tuple(entries))


Rules = tuple[tuple[str, GitIgnoreSpec], ...]
"""Ignore files from the outermost to the innermost, each with its own folder: "" or `sub/`; one
above the root has a path down to the root in place of it, with a leading `/`."""


class _Walk:
    """Looks at every file below a root that is not ignored."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = [IGNORE_FILE] if (root / IGNORE_FILE).is_file() else [".gitignore"]
        self.files: list[CodeFile] = []
        self.links: dict[str, str] = {}
        self.left_out = 0

    def enter(self, folder: str, rules: Rules) -> None:
        """Takes what is in a folder: "" or a path with `/` at its end."""
        if not folder and self._names == [IGNORE_FILE]:
            rules = rules[:1]
        for name in self._names:
            rules += tuple(_rules(self._root / folder / name, folder))
        for entry in sorted(os.scandir(self._root / folder), key=lambda entry: entry.name):
            path = folder + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if _ignored(f"{path}/" if is_folder else path, rules):
                self.left_out += 1
            elif entry.is_symlink():
                self.links[path] = _inside(self._root, path)
            elif is_folder:
                self.enter(f"{path}/", rules)
            else:
                self._file(path, entry.stat(follow_symlinks=False))

    def _file(self, path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):  # a socket or a pipe: nothing that could travel
            self.left_out += 1
            return
        try:
            path.encode()
        except UnicodeEncodeError as why:
            raise UserError(
                f"the name of {self._root / path!s:.200} is not UTF-8", hint="rename it"
            ) from why
        runs = bool(status.st_mode & stat.S_IXUSR)
        self.files.append(CodeFile(path=path, size=status.st_size, executable=runs))


def _above(root: Path) -> Rules:
    """What is always left out, and the ignore files of the repository that the root is in."""
    rules: list[tuple[str, GitIgnoreSpec]] = [("", GitIgnoreSpec.from_lines(ALWAYS))]
    repository = next((up for up in (root, *root.parents) if (up / ".git").exists()), None)
    if repository is None:
        return tuple(rules)
    between = [up for up in root.parents if up == repository or repository in up.parents]
    for up in reversed(between):
        rules += _rules(up / ".gitignore", f"/{root.relative_to(up).as_posix()}/")
    return tuple(rules)


def _rules(file: Path, folder: str) -> Iterator[tuple[str, GitIgnoreSpec]]:
    if file.is_file():
        text = file.read_text(encoding="utf-8", errors="replace")
        yield folder, GitIgnoreSpec.from_lines(text.splitlines())


def _ignored(path: str, rules: Rules) -> bool:
    """Whether a path is left out: the last file that says anything about it decides."""
    for folder, spec in reversed(rules):
        seen = folder[1:] + path if folder.startswith("/") else path.removeprefix(folder)
        said = spec.check_file(seen).include
        if said is not None:
            return bool(said)
    return False


def _inside(root: Path, path: str) -> str:
    """Where a link leads, relative to its place. Raises UserError when that is outside."""
    link = root / path
    to = written = str(link.readlink())
    if Path(to).is_absolute() and root in Path(os.path.normpath(to)).parents:
        to = os.path.relpath(to, link.parent)
    end = Path(os.path.realpath(link))
    try:
        code_layout.check_link(path, to)
        leaves = end != root and root not in end.parents
    except IntegrityError:
        leaves = True
    if leaves:
        raise UserError(
            f"the link {path} leads out of {root}, to {written}",
            hint=f"copy what it names into the folder, or name the link in {root / IGNORE_FILE}",
        )
    return to


def _check_size(found: CodeFolder, limit: int) -> None:
    if found.size <= limit and len(found.files) <= FILES_LIMIT:
        return
    biggest = ", ".join(f"{file.path} ({file.size / 1e6:,.1f} MB)" for file in found.biggest())
    raise UserError(
        f"{found.root} holds {len(found.files):,} files with {found.size / 1e6:,.0f} MB, more than "
        f"{FILES_LIMIT:,} files or {limit / 1e6:,.0f} MB; the biggest: {biggest}",
        hint=f"name what the script does not need in {found.root / IGNORE_FILE} (like .gitignore); "
        "`llamaforge run --dry-run` lists what travels; --max-size lets more through",
    )
