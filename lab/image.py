"""Images: read-only layers that a node's disk begins with.

"bare" has none: a strange machine. "installed" has the product in /opt as ./install.sh puts it
there, in two layers below .lab/ in the checkout: the libraries, which take minutes and change
seldom, and the product, which takes seconds and changes with every edit. A layer's name has the
digest of all that went into it, so it is built once, by whichever lab needs it first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lab.builder import Builder
from lab.errors import LabError
from lab.machine import CHECKOUT

STORE = CHECKOUT / ".lab"
IMAGES = ("bare", "installed")

# What ./install.sh reads; a copy of it is what a layer is built from, so that an edit meanwhile
# can't make a layer that its digest does not describe.
_LIBRARIES_FROM = ("install.sh", "constraints.txt", "pyproject.toml")
_PRODUCT_FROM = (
    *("install.sh", "constraints.txt", "pyproject.toml", "README.md", "distributed_train.py"),
    *("LICENSE", "src", "packaging", "examples/models"),
)
_OLD_S = 3600.0


def layers(image: str, builder: Builder) -> list[Path]:
    """The layers of an image above the stranger's root, topmost first; built where missing."""
    if image not in IMAGES:
        raise LabError(f"there is no image {image!r}: use one of {', '.join(IMAGES)}")
    if image == "bare":
        return []
    with _alone():
        source = builder.folder / "source"
        try:
            _copy(source)
            libraries = _layer("libraries", _digest(source, _LIBRARIES_FROM), source, [], builder)
            digest = _digest(source, _PRODUCT_FROM)
            product = _layer("product", digest, source, [libraries], builder)
        finally:
            shutil.rmtree(builder.folder, ignore_errors=True)
        _forget_old({libraries, product})
    return [product, libraries]


def _layer(kind: str, digest: str, source: Path, below: list[Path], builder: Builder) -> Path:
    layer = STORE / f"{kind}-{digest}"
    if not layer.exists():
        begun = time.monotonic()
        say(f"building the {kind} of the installed image")
        upper = builder.install(source, below, say)
        if kind == "libraries":
            _strip_product(upper / "opt/llamaforge")
        upper.rename(layer)
        say(f"built {layer.name} in {time.monotonic() - begun:.0f} s")
    layer.touch()
    return layer


def _strip_product(prefix: Path) -> None:
    """Of a whole installation, leave the libraries: the product is the other layer's."""
    shutil.rmtree(prefix / "versions")
    for link in ("current", "previous"):
        (prefix / link).unlink(missing_ok=True)


def _copy(target: Path) -> None:
    target.mkdir(parents=True)
    for name in _PRODUCT_FROM:
        path, copy = CHECKOUT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        elif path.exists():
            shutil.copy2(path, copy)
        else:
            raise LabError(f"{path} is missing, so the installed image can't be built")


def _digest(source: Path, names: tuple[str, ...]) -> str:
    """Sixteen hex digits of the names, modes and bytes of files and folders."""
    total = hashlib.sha256()
    for name in names:
        top = source / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file():
                mode = path.stat().st_mode & 0o111
                total.update(f"{path.relative_to(source)} {mode:o}\n".encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def _forget_old(used: set[Path]) -> None:
    """Remove layers that nobody has asked for in an hour and no disk stands on."""
    mounts = Path("/proc/mounts").read_text()
    for layer in [*STORE.glob("libraries-*"), *STORE.glob("product-*")]:
        old = time.time() - layer.stat().st_mtime > _OLD_S
        if layer not in used and old and str(layer) not in mounts:
            shutil.rmtree(layer)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Build alone: two labs that need the same layer would only be in each other's way."""
    STORE.mkdir(exist_ok=True)
    with (STORE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another lab that builds the installed image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(line: str) -> None:
    """Show progress to whoever waits."""
    print(f"lab: {line}", file=sys.stderr, flush=True)
