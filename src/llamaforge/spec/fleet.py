"""How a worker and a coordinator are set up: flag, environment, settings file, default.

The variables are torchrun's where torchrun has one (`MASTER_ADDR`, `NODE_RANK`, …), so that a
unit file written for it works; the others begin with `LLAMAFORGE_`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from llamaforge import paths
from llamaforge.errors import SpecError
from llamaforge.spec.labels import parse_labels
from llamaforge.spec.networks import is_host, parse_networks
from llamaforge.spec.settings_file import SettingsFile
from llamaforge.spec.sizes import parse_size

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1, le=4096)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
NodeName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

CONTROL_PORT = 29400
"""The coordinator's default port; 29500 stays free for the classic way's store."""
PEER_PORT = 29500
"""The worker's default port."""
ALL_ADDRESSES = "::"
"""What a service listens on: every address of both families."""
NETWORK_TIMEOUT = 600.0
"""Seconds that a rank waits for another that is silent but not gone, where nothing else is set.
One that dies is noticed at once: its connections are reset."""


CACHE_LIMIT = (
    "most bytes that blobs and tokenised rows may take, such as 50G; by default a fifth of the disk"
)


def _from(variable: str, text: str, **limits: Any) -> Meta:
    """The metadata of one setting: the variable it can come from and what it means."""
    return Meta(description=text, extra={"variable": variable}, **limits)


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one worker runs. Make it with `worker_settings`."""

    name: Annotated[NodeName, _from("LLAMAFORGE_NODE_NAME", "the node's name in the fleet")]
    state_dir: Annotated[
        str, _from("LLAMAFORGE_STATE_DIR", "folder for the worker's identity and running jobs")
    ]
    cache_dir: Annotated[
        str, _from("LLAMAFORGE_CACHE_DIR", "folder for blobs and tokenised rows; may be shared")
    ]
    fleet: Annotated[
        str | None,
        _from("LLAMAFORGE_FLEET", "fleet file of the coordinator; by default this user's"),
    ] = None
    coordinator: Annotated[
        str | None,
        _from("LLAMAFORGE_COORDINATOR", "HOST:PORT of the coordinator, over the fleet file's"),
    ] = None
    token_file: Annotated[
        str | None,
        _from("LLAMAFORGE_TOKEN_FILE", "file with a join token, for a worker not yet in a fleet"),
    ] = None
    address: Annotated[
        str | None,
        _from(
            "LLAMAFORGE_ADDRESS",
            "IP address at which other nodes reach this one; by default the one that routes to "
            "the coordinator",
        ),
    ] = None
    ranks: Annotated[
        Count | None,
        _from("LLAMAFORGE_RANKS", "ranks to run per fleet job; by default by the cores"),
    ] = None
    cores: Annotated[
        Count | None,
        _from("LLAMAFORGE_CORES", "processor cores to use; by default all that it may run on"),
    ] = None
    peer_port: Annotated[
        Port,
        _from("LLAMAFORGE_PEER_PORT", "health and metrics port; the next free one is taken"),
    ] = PEER_PORT
    peer_host: Annotated[
        str, _from("LLAMAFORGE_PEER_HOST", "address that the health and metrics port binds to")
    ] = "127.0.0.1"
    stop_seconds: Annotated[
        Seconds, _from("LLAMAFORGE_STOP_SECONDS", "how long ranks may take to checkpoint and leave")
    ] = 60.0
    master_addr: Annotated[
        str | None, _from("MASTER_ADDR", "classic way: host whose torchrun store to wait for")
    ] = None
    master_port: Annotated[Port, _from("MASTER_PORT", "classic way: port of that store")] = 29500
    node_rank: Annotated[
        int, _from("NODE_RANK", "classic way: this node's rank among the nodes", ge=0)
    ] = 1
    world_size: Annotated[
        Count, _from("WORLD_SIZE", "classic way: number of nodes, the master's included")
    ] = 2
    nproc_per_node: Annotated[
        Count, _from("NPROC_PER_NODE", "classic way: processes on this node")
    ] = 1
    hf_home: Annotated[
        str | None, _from("HF_HOME", "folder of the Hugging Face cache, for the ranks")
    ] = None
    allow: Annotated[
        str | None,
        _from(
            "LLAMAFORGE_ALLOW",
            "addresses, networks and hosts, separated by commas, that may connect to the health "
            "and metrics port, besides this machine, the coordinator and MASTER_ADDR",
        ),
    ] = None
    network_timeout: Annotated[
        Seconds,
        _from(
            "LLAMAFORGE_NETWORK_TIMEOUT",
            "seconds that a rank waits for another that is silent but not gone; longer for slow "
            "or busy networks",
        ),
    ] = NETWORK_TIMEOUT
    labels: Annotated[
        str | None,
        _from(
            "LLAMAFORGE_LABELS",
            "labels of this node, separated by commas, that jobs can ask for: gpu, rack=3",
        ),
    ] = None
    cache_limit: Annotated[str | None, _from("LLAMAFORGE_CACHE_LIMIT", CACHE_LIMIT)] = None
    writable: Annotated[
        str | None,
        _from(
            "LLAMAFORGE_WRITABLE",
            "more folders that ranks and scripts may write to, separated by colons; by default "
            "the job's own, caches and temporary folders",
        ),
    ] = None

    @property
    def writable_folders(self) -> tuple[str, ...]:
        """`writable`, one by one."""
        return tuple(filter(None, (self.writable or "").split(":")))

    @property
    def node_labels(self) -> tuple[str, ...]:
        """`labels` as a job's wishes are held against them."""
        return parse_labels(self.labels, source="LLAMAFORGE_LABELS")

    @property
    def cache_bytes(self) -> int | None:
        """`cache_limit` in bytes; None where none is set."""
        return _cache_bytes(self.cache_limit)


class CoordinatorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one coordinator runs. Make it with `coordinator_settings`."""

    state_dir: Annotated[
        str,
        _from("LLAMAFORGE_STATE_DIR", "folder for the fleet's authority, its ledger, and jobs"),
    ]
    cache_dir: Annotated[str, _from("LLAMAFORGE_CACHE_DIR", "folder for blobs; may be shared")]
    runtime_dir: Annotated[
        str,
        _from(
            "LLAMAFORGE_RUNTIME_DIR",
            "folder for the fleet file and the socket for people on this machine",
        ),
    ]
    host: Annotated[
        str,
        _from(
            "LLAMAFORGE_HOST",
            "address to listen on; `::` means all addresses, of IPv4 too",
        ),
    ] = "127.0.0.1"
    port: Annotated[Port, _from("LLAMAFORGE_PORT", "port to listen on; 0 takes any free one")] = (
        CONTROL_PORT
    )
    node_grace: Annotated[
        Seconds,
        _from("LLAMAFORGE_NODE_GRACE", "seconds without its connection until a node is lost"),
    ] = 30.0
    return_grace: Annotated[
        Seconds,
        _from(
            "LLAMAFORGE_RETURN_GRACE",
            "how long a job waits for a worker that left, or was lost, before it goes on without",
        ),
    ] = 10.0
    stop_seconds: Annotated[
        Seconds, _from("LLAMAFORGE_STOP_SECONDS", "how long ranks may take to checkpoint and leave")
    ] = 60.0
    public: Annotated[
        str | None,
        _from(
            "LLAMAFORGE_PUBLIC",
            "HOST:PORT at which other machines reach this one, for the line that `coordinator "
            "token` prints; by default the address that routes outward",
        ),
    ] = None
    cache_limit: Annotated[str | None, _from("LLAMAFORGE_CACHE_LIMIT", CACHE_LIMIT)] = None

    @property
    def cache_bytes(self) -> int | None:
        """`cache_limit` in bytes; None where none is set."""
        return _cache_bytes(self.cache_limit)


Settings = TypeVar("Settings", WorkerSettings, CoordinatorSettings)


def worker_settings(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: SettingsFile | None = None
) -> WorkerSettings:
    """Resolves a worker's settings.

    Under systemd the folders default to the unit's StateDirectory= and CacheDirectory=, and the
    token to its credential (systemd.exec(5)). A service is there for other machines, so its port
    listens on all addresses; a worker started by hand keeps to itself.

    Args:
        flags: by field name, from the command line; None means not given.
        environ: the process's environment.
        file: the settings file, if there is one.

    Raises:
        SpecError: a value is wrong; names where it came from and the value.
    """
    defaults = {
        "name": _host_name(),
        "state_dir": _first_folder(environ, "STATE_DIRECTORY") or str(paths.state_dir()),
        "cache_dir": _first_folder(environ, "CACHE_DIRECTORY") or str(paths.cache_dir()),
        "token_file": _credential(environ, "token"),
        "peer_host": ALL_ADDRESSES if environ.get("STATE_DIRECTORY") else "127.0.0.1",
    }
    settings = _resolve(WorkerSettings, flags, environ, defaults, file)
    parse_networks(settings.allow, source="LLAMAFORGE_ALLOW")
    if settings.master_addr is not None and not is_host(settings.master_addr):
        raise SpecError(
            f"MASTER_ADDR is {settings.master_addr!r}", hint="it is a host's name or IP address"
        )
    parse_labels(settings.labels, source="LLAMAFORGE_LABELS")
    _cache_bytes(settings.cache_limit)
    if settings.coordinator is not None:
        host_and_port(settings.coordinator)
    if settings.master_addr is not None and settings.node_rank >= settings.world_size:
        raise SpecError(
            f"NODE_RANK is {settings.node_rank}, but WORLD_SIZE is {settings.world_size} nodes",
            hint="node ranks count from 0; a worker's is 1 to WORLD_SIZE - 1",
        )
    return settings


def host_and_port(
    text: str, source: str = "--coordinator (LLAMAFORGE_COORDINATOR)"
) -> tuple[str, int]:
    """Splits a coordinator's HOST:PORT, HOST, [IPv6] or [IPv6]:PORT.

    Args:
        text: the address.
        source: where it is from, for messages: a flag or variable.

    Raises:
        SpecError: it is no address.
    """
    bracketed = text.startswith("[")
    host, _, rest = text[1:].partition("]") if bracketed else text.partition(":")
    port = rest.lstrip(":") if bracketed else rest
    number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else None if port else CONTROL_PORT
    if not is_host(host) or number is None or number > 65535:
        raise SpecError(
            f"{source} is {text!r}, and that is no address",
            hint="it is HOST:PORT, such as 192.168.1.10:29400; a port is a number up to 65535",
        )
    return host, number


def network_timeout(environ: Mapping[str, str]) -> float:
    """The one setting of a worker that also counts where there is none: under plain torchrun.

    Raises:
        SpecError: the variable's value is wrong.
    """
    variable = variables(WorkerSettings)["network_timeout"]
    return worker_settings({}, {variable: environ.get(variable, "")}).network_timeout


def coordinator_settings(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: SettingsFile | None = None
) -> CoordinatorSettings:
    """Resolves a coordinator's settings; arguments and errors as for `worker_settings`.

    A service listens on all addresses, since every machine that is let in has shown a certificate;
    a coordinator started by hand keeps to its own machine.
    """
    state = _first_folder(environ, "STATE_DIRECTORY") or str(paths.state_dir())
    defaults = {
        "state_dir": state,
        "cache_dir": _first_folder(environ, "CACHE_DIRECTORY") or str(paths.cache_dir()),
        "runtime_dir": _first_folder(environ, "RUNTIME_DIRECTORY"),
        "host": ALL_ADDRESSES if environ.get("STATE_DIRECTORY") else "127.0.0.1",
    }
    settings = _resolve(CoordinatorSettings, flags, environ, defaults, file)
    if not settings.runtime_dir:
        settings = msgspec.structs.replace(settings, runtime_dir=settings.state_dir)
    _cache_bytes(settings.cache_limit)
    if settings.public is not None:
        host_and_port(settings.public, "--public (LLAMAFORGE_PUBLIC)")
    return settings


def _cache_bytes(text: str | None) -> int | None:
    """Raises SpecError."""
    return parse_size(text, source="LLAMAFORGE_CACHE_LIMIT") if text else None


def variables(settings: type[WorkerSettings] | type[CoordinatorSettings]) -> dict[str, str]:
    """Which environment variable sets each field."""
    return {field.name: _meta(field)["variable"] for field in msgspec.structs.fields(settings)}


def meanings(settings: type[WorkerSettings] | type[CoordinatorSettings]) -> dict[str, str]:
    """What each field is, in a few words."""
    return {field.name: _meta(field)["description"] for field in msgspec.structs.fields(settings)}


def _resolve(
    kind: type[Settings],
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    defaults: Mapping[str, Any],
    file: SettingsFile | None = None,
) -> Settings:
    """Takes each field from flag, environment, file or default; checks it where it came from."""
    values: dict[str, Any] = dict(defaults)
    for field in msgspec.structs.fields(kind):
        variable = _meta(field)["variable"]
        if flags.get(field.name) is not None:
            source, value = f"--{field.name.replace('_', '-')}", flags[field.name]
        elif environ.get(variable):
            source, value = variable, environ[variable]
        elif file is not None and file.values.get(variable):
            source, value = f"{variable} in {file.path}", file.values[variable]
        else:
            continue
        try:
            values[field.name] = msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError as why:
            raise SpecError(
                f"{source} is {value!r}, and not {_kind(field.type)}",
                hint=f"it means: {_meta(field)['description']}",
            ) from why
    return kind(**values)


def _kind(expected: Any) -> str:
    """What a setting of such a type may be, for people."""
    import msgspec.inspect  # only a mistake needs it

    found = msgspec.inspect.type_info(expected)
    while isinstance(found, msgspec.inspect.Metadata):
        found = found.type
    choices = found.types if isinstance(found, msgspec.inspect.UnionType) else (found,)
    for one in choices:
        if isinstance(one, msgspec.inspect.IntType):
            return f"a whole number from {one.ge}" + (f" to {one.le}" if one.le else " up")
        if isinstance(one, msgspec.inspect.FloatType):
            return f"a number above {one.gt:g} and up to {one.le:g}"
    return "a name: letters, digits, '.', '_' and '-', 64 at most, beginning with a letter or digit"


def _meta(field: msgspec.structs.FieldInfo) -> dict[str, str]:
    """The variable and the description of a field."""
    meta = next(m for m in reversed(field.type.__metadata__) if m.extra)
    return {"variable": str(meta.extra["variable"]), "description": str(meta.description)}


def _first_folder(environ: Mapping[str, str], variable: str) -> str:
    """The first of the folders that systemd has made for the unit; "" without systemd."""
    return environ.get(variable, "").partition(":")[0]


def _credential(environ: Mapping[str, str], name: str) -> str | None:
    """The file of a credential that the unit was given; None when it is missing or blank.

    The unit's default for a missing one is a line break: systemd takes no empty credential.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, name) if folder else None
    return str(path) if path and path.is_file() and path.read_bytes().strip() else None


def _host_name() -> str:
    """This machine's short name, made fit for a node's name."""
    short = socket.gethostname().split(".")[0]
    kept = "".join(c if c.isalnum() or c in "-_" else "-" for c in short if c.isascii())
    return kept.strip("-_") or "node"
