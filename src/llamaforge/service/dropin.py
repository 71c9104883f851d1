"""The drop-in that a person's choices become: `50-install.conf`.

Everything here is ordinary unit settings, so that an administrator reads it with `systemctl cat`
and may write the same by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from llamaforge.service.kind import WORKER, Kind
from llamaforge.service.request import Request

HEAD = (
    "# Written by `{install}`; asked again, it leaves an edited file alone.\n"
    "# Settings of your own are safest in another file of this folder, such as 90-local.conf.\n"
)
HIDDEN = ("/home", "/root", "/run/user")
"""What ProtectHome= hides."""


def render(
    request: Request,
    *,
    group: str,
    device_groups: tuple[str, ...],
    lingering: bool,
    remote: tuple[str, ...] = (),
    program: str = "",
    kind: Kind = WORKER,
) -> str:
    """The text of the drop-in.

    Args:
        request: checked by `request.check`.
        group: of `request.user`, when that is a person.
        device_groups: groups on this machine that own GPUs; naming a missing one fails a unit.
        lingering: for a person's own service, which has neither user nor groups.
        remote: mount points of file systems that other machines serve.
        program: the environment to run from, where it is not the packaged unit's.
        kind: which service.

    Returns:
        "" where the packaged unit is right as it is.
    """
    paths = needed_paths(request)
    unit = ["# Network mounts first.", "After=remote-fs.target"] if paths and not lingering else []
    lines = [*_limits(request), *_placement(request), *_program(request, program, kind)]
    if not lingering:
        lines = [*_account(request, group, device_groups), *_files(paths, remote), *lines]
    if not lines:
        return ""
    head = ["[Unit]", *unit, ""] if unit else []
    return head_of(kind) + "\n".join(["", *head, "[Service]", *lines, ""])


def head_of(kind: Kind) -> str:
    """How each of our drop-ins in /etc begins."""
    return HEAD.format(install=kind.install)


def needed_paths(request: Request) -> tuple[str, ...]:
    """Every folder of a person's that the service must be shown: asked for, or named elsewhere."""
    named = [*request.paths, request.workdir, request.settings.get("HF_HOME", "")]
    named.append(request.env.get("HF_HOME", ""))
    return tuple(dict.fromkeys(path.rstrip("/") for path in named if path.startswith("/")))


def _account(request: Request, group: str, device_groups: tuple[str, ...]) -> Iterator[str]:
    if request.user and request.user != WORKER.user:
        yield f"User={request.user}"
    if request.group or group:
        yield f"Group={request.group or group}"
    if device_groups:
        yield "SupplementaryGroups=" + " ".join(device_groups)


def _files(paths: tuple[str, ...], remote: tuple[str, ...]) -> Iterator[str]:
    """Shows and opens folders. The minus sign: one that is missing does not fail the unit."""
    hidden = [path for path in paths if _is_hidden(path)]
    if hidden:
        yield "# Of the homes, only these folders are seen."
        yield "ProtectHome=tmpfs"
    yield from (f"BindPaths=-{quoted(path)}" for path in hidden)
    opened = {path: _before_mount(path, remote) for path in paths if path not in hidden}
    if any(path != folder for path, folder in opened.items()):
        yield "# Not the mount itself: systemd would wait for a dead server, and nobody say so."
    yield from (f"ReadWritePaths=-{quoted(folder)}" for folder in dict.fromkeys(opened.values()))


def _before_mount(path: str, remote: tuple[str, ...]) -> str:
    """The folder that holds the mount that a path is on, or the path where there is none.

    systemd looks at each path that it opens before it starts anything, so one on a mount whose
    server is gone would keep the worker from starting, and from naming the mount. The root can't
    be opened instead.
    """
    for point in sorted(remote, key=len):
        parent = str(PurePosixPath(point).parent)
        if PurePosixPath(path).is_relative_to(point) and parent != "/":
            return parent
    return path


def _is_hidden(path: str) -> bool:
    return any(PurePosixPath(path).is_relative_to(home) for home in HIDDEN)


def _limits(request: Request) -> Iterator[str]:
    if request.memory:
        yield f"MemoryMax={request.memory}"
    if request.cpu:
        yield f"CPUQuota={request.cpu}"


def _placement(request: Request) -> Iterator[str]:
    if request.nice:
        yield f"Nice={request.nice}"
    if request.cpu_policy:
        yield f"CPUSchedulingPolicy={request.cpu_policy}"
    if request.cpus:
        yield "CPUAffinity=" + request.cpus.replace(",", " ")
    if request.numa_node or request.numa_policy:
        yield f"NUMAPolicy={request.numa_policy or 'bind'}"
    if request.numa_node:
        yield f"NUMAMask={request.numa_node}"


def _program(request: Request, program: str, kind: Kind) -> Iterator[str]:
    if request.workdir:
        yield f"WorkingDirectory={escaped(request.workdir)}"
    if request.exec:
        yield "# Not the worker: this says when it is ready, and knows no reload."
        yield "Type=notify"
        yield "ExecReload="
        yield "ExecStart="
        yield f"ExecStart={escaped(request.exec)}"
    elif program:
        yield "# The program was installed elsewhere than the packaged unit thinks."
        yield "ExecStart="
        yield f"ExecStart={quoted(program + '/bin/llamaforge')} {kind.name} run"


def escaped(text: str) -> str:
    """`%` begins a specifier in a unit file (systemd.unit(5))."""
    return text.replace("%", "%%")


def quoted(path: str) -> str:
    """A path as one word of a list, whatever it holds."""
    plain = escaped(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"' if any(character in plain for character in " \t\"'\\:") else plain
