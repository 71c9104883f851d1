"""What makes an overlay of this box's root look like somebody else's machine.

A small read-only layer over the root hides what is this box's own: its people's folders, checkouts,
databases, timers, package settings. It lies on a tmpfs, so nothing of it is ever on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# The file hierarchy standard's names; everything else at the top of the box is its own business.
_TOP = {
    *("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt"),
    *("opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var"),
}

# Folders that a strange machine has, without anything of ours in them.
_EMPTY = {
    "boot": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "root": 0o700,
    "run": 0o755,
    "srv": 0o755,
    "tmp": 0o1777,
    "etc/cron.d": 0o755,
    "etc/init.d": 0o755,
    "etc/systemd/journald.conf.d": 0o755,
    "etc/systemd/network": 0o755,
    "etc/systemd/system": 0o755,
    "var/lib/private": 0o700,
    "var/lib/systemd": 0o755,
    "var/log": 0o755,
    "var/log/journal": 0o755,
    "var/log/private": 0o700,
    "var/mail": 0o775,
    "var/spool/cron": 0o755,
    "var/tmp": 0o1777,
    **{f"etc/rc{level}.d": 0o755 for level in "0123456S"},
}

# What an administrator of this box has put there. It stays where python itself stands there.
_LOCAL = ("bin", "etc", "include", "lib", "sbin", "share", "src")

_GONE = (
    *("etc/llamaforge", "etc/pip.conf", "etc/xdg/pip"),
    *("var/cache/llamaforge", "var/cache/private", "var/lib/llamaforge", "var/lib/postgresql"),
)

_UNITS = {
    "multi-user.target.wants": ("systemd-networkd.service", "remote-fs.target"),
    "network-online.target.wants": ("systemd-networkd-wait-online.service",),
    "sockets.target.wants": ("systemd-networkd.socket",),
    "getty.target.wants": (),
}

# Of what distributions enable themselves: no consoles, and nothing that needs the world outside.
_MASKED = (
    *("console-getty.service", "getty-static.service", "getty@tty1.service"),
    *("packagekit.service", "systemd-firstboot.service", "systemd-timesyncd.service"),
    *("systemd-resolved.service", "systemd-networkd-persistent-storage.service"),
    *("systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "systemd-repart.service"),
)

_FILES = {
    "etc/environment": "",
    "etc/fstab": "# nothing besides the root\n",
    "etc/machine-id": "",
    "etc/mtab": "../proc/self/mounts",
    "etc/resolv.conf": "",
    "etc/systemd/journald.conf.d/10-lab.conf": "[Journal]\nStorage=persistent\n",
}


def fill(layer: Path, units: Path = Path("/lib/systemd/system"), root: Path = Path("/")) -> None:
    """Write the hiding layer for a box's root into an empty folder. Makes devices: needs root."""
    layer.chmod(0o755)
    for name, mode in _EMPTY.items():
        _empty_folder(layer, root, name, mode)
    if (root / "usr/bin/python3").exists():
        for name in ("usr/local", *(f"usr/local/{part}" for part in _LOCAL)):
            _empty_folder(layer, root, name, 0o755)
    for name in _hidden(root):
        _hide(layer, root, name)
    for name, text in _FILES.items():
        path = _parents(layer, root, name)
        if name.endswith("mtab"):
            path.symlink_to(text)
        else:
            path.write_text(text)
    _enable(layer / "etc/systemd/system", units)
    _own_machine_id(layer, root)


def _hidden(root: Path) -> Iterator[str]:
    yield from sorted({path.name for path in root.iterdir()} - _TOP)
    yield from _GONE
    for folder in ("etc/ssh", "root"):
        if (root / folder).is_dir():
            hosts = (root / folder).glob("ssh_host_*")
            yield from (path.relative_to(root).as_posix() for path in hosts)


def _parents(layer: Path, root: Path, name: str) -> Path:
    """The path of `name` in the layer, its parents made as they are on the box."""
    path = layer / name
    for parent in reversed(Path(name).parents[:-1]):
        if not (layer / parent).exists():
            (layer / parent).mkdir()
            seen = (root / parent).stat() if (root / parent).is_dir() else None
            (layer / parent).chmod(seen.st_mode & 0o7777 if seen else 0o755)
            if seen:
                os.chown(layer / parent, seen.st_uid, seen.st_gid)
    return path


def _empty_folder(layer: Path, root: Path, name: str, mode: int) -> None:
    path = _parents(layer, root, name)
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    os.setxattr(path, "trusted.overlay.opaque", b"y")


def _hide(layer: Path, root: Path, name: str) -> None:
    if os.path.lexists(root / name):
        path = _parents(layer, root, name)
        if not os.path.lexists(path):
            # A device 0:0 is how an overlay says that something below is gone.
            os.mknod(path, 0o020000, os.makedev(0, 0))


def _enable(folder: Path, units: Path) -> None:
    for wants, names in _UNITS.items():
        (folder / wants).mkdir()
        for name in names:
            if (units / name).exists():
                (folder / wants / name).symlink_to(units / name)
    for name in _MASKED:
        (folder / name).symlink_to("/dev/null")
    (folder / "default.target").symlink_to(units / "multi-user.target")


def _own_machine_id(layer: Path, root: Path) -> None:
    """D-Bus keeps a copy of the machine's id; every node gets its own in /etc."""
    if os.path.lexists(root / "var/lib/dbus/machine-id"):
        _parents(layer, root, "var/lib/dbus/machine-id").symlink_to("/etc/machine-id")
