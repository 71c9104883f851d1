"""From a request and facts about the machine to files and commands. Nothing is touched here.

    plan = make(request, facts, places, token=None)

`show` prints a plan, `apply` carries it out.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from llamaforge.errors import UserError
from llamaforge.service import gates, mail, settings_text, shipped
from llamaforge.service.dropin import head_of, render
from llamaforge.service.places import Places
from llamaforge.service.request import Request, check, numbers


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan must know about the machine."""

    systemd: int
    """Its version."""
    running: bool
    """Whether systemd runs here: not in a chroot or a container without it."""
    device_groups: tuple[str, ...] = ()
    """Those of `video` and `render` that exist."""
    user_group: str = ""
    """The primary group of the person the service shall run as; "" when there is none."""
    user_is_root: bool = False
    """Whether that account has root's rights."""
    group_exists: bool = True
    """Whether the group that was asked for exists."""
    cpus: str = ""
    """Numbers of the processors: `0-7`; "" where the kernel doesn't say."""
    numa_nodes: str = ""
    """Numbers of the NUMA nodes; "" where the kernel doesn't say."""
    service_user: bool = False
    """Whether the service's own user exists."""
    has_token: bool = False
    """Whether a token was given before."""
    remote: tuple[str, ...] = ()
    """Where file systems of other machines are mounted, or should be."""
    person: str = ""
    """Who installs a service of their own."""
    lingers: bool = False
    """Whether that person's services run without a login."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file to write, owned by whoever installs."""

    path: str
    content: str
    mode: int = 0o644
    secret: bool = False
    """Its content is never shown."""
    given: bool = False
    """Its very content was given now: it goes over whatever stands there."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command to run after the files are there."""

    words: tuple[str, ...]
    needs_systemd: bool = True
    """It is left out where systemd does not run."""
    or_else: str = ""
    """What to tell the person when it fails; without this, a failure ends the installation."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an installation does, but for the start of the service."""

    request: Request
    files: tuple[File, ...]
    commands: tuple[Command, ...]
    keeps: tuple[str, ...] = ()
    """Files of an earlier plan that stay although this one does not write them."""


def make(request: Request, facts: Facts, places: Places, *, token: str | None = None) -> Plan:
    """The plan.

    Args:
        request: what was asked for.
        facts: what is true of the machine.
        places: where files go.
        token: a join token, when one was given.

    Raises:
        UserError: the request can't be had on this machine.
    """
    check(request, places.kind)
    if facts.systemd < gates.OLDEST:
        raise UserError(
            f"systemd {facts.systemd} is too old: the unit needs {gates.OLDEST}",
            hint=f"run the {places.kind.name} by hand: llamaforge {places.kind.name} run",
        )
    if places.lingering and (request.user or request.group):
        raise UserError("a service of your own runs as you", hint="leave out --user and --group")
    if places.lingering and request.mail_to:
        raise UserError("--mail-to is for the machine's service", hint="install it as root")
    if request.user not in ("", places.kind.user) and not facts.user_group:
        raise UserError(
            f"--user is {request.user}, and there is no such account",
            hint=f"make it: sudo useradd --create-home {request.user}",
        )
    _check_there(request, facts)
    files = (*_packaged(facts, places), *_chosen(request, facts, places, token))
    return Plan(
        request=request,
        files=files,
        commands=tuple(_commands(places, facts)),
        keeps=(places.token,),
    )


def _check_there(request: Request, facts: Facts) -> None:
    """Refuses what this machine does not have: the unit would fail at every start.

    Raises:
        UserError: names the option and what there is.
    """
    if facts.user_is_root:
        raise UserError(
            f"--user is {request.user}: worker and ranks never run as root",
            hint="name a person, or leave it out: the service has a user of its own",
        )
    if not facts.group_exists:
        raise UserError(
            f"--group is {request.group}, and there is no such group",
            hint=f"make it: sudo groupadd {request.group}",
        )
    for option, asked, there in (
        ("--cpus", request.cpus, facts.cpus),
        ("--numa-node", request.numa_node, facts.numa_nodes),
    ):
        if asked and there and not numbers(asked) & numbers(there):
            raise UserError(f"{option} is {asked}", hint=f"this machine has {there}")


def _packaged(facts: Facts, places: Places) -> Iterator[File]:
    unit = places.kind.unit
    source = "systemd/user" if places.lingering else "systemd"
    yield File(path=f"{places.units}/{unit}", content=shipped.text(f"{source}/{unit}"))
    for name in gates.open_gates(facts.systemd):
        text = shipped.text(f"systemd/{unit}.d/{name}")
        yield File(path=f"{places.units}/{unit}.d/{name}", content=text)
    if not places.lingering:
        for path, name in places.kind.declarations.items():
            yield File(path=path, content=shipped.text(name))


def _chosen(request: Request, facts: Facts, places: Places, token: str | None) -> Iterator[File]:
    text = settings_text.settings_file(request.settings, places.kind)
    if places.lingering and (token is not None or facts.has_token):
        text += f"\nLLAMAFORGE_TOKEN_FILE={places.token}\n"
    yield File(path=places.settings, content=text)
    if request.env:
        yield File(
            path=places.environment,
            content=settings_text.environment_file(request.env),
            mode=0o600,
            secret=True,
        )
    if token is not None:
        yield File(path=places.token, content=token + "\n", mode=0o600, secret=True, given=True)
    dropin = render(
        request,
        group=facts.user_group,
        device_groups=facts.device_groups if places.kind.runs_ranks else (),
        remote=facts.remote,
        lingering=places.lingering,
        program="" if places.program == places.packaged_program else places.program,
        kind=places.kind,
    )
    if dropin:
        yield File(path=f"{places.dropins}/50-install.conf", content=dropin)
    if request.mail_to:
        yield from _mail_files(request.mail_to, places)


def _mail_files(address: str, places: Places) -> Iterator[File]:
    """Mails on failure: programs, template unit, settings, and the drop-in that turns them on."""
    yield from (
        File(path=path, content=shipped.text(source), mode=mode)
        for path, (source, mode) in mail.PROGRAMS.items()
    )
    yield File(
        path=places.mail_settings,
        content=mail.settings(shipped.text("mail/mail.conf.example"), address),
        mode=0o600,
    )
    dropin = shipped.text("mail/60-mail.conf")
    yield File(path=f"{places.dropins}/60-mail.conf", content=head_of(places.kind) + "\n" + dropin)


def _commands(places: Places, facts: Facts) -> Iterator[Command]:
    if places.lingering and not facts.lingers:
        yield Command(
            words=("loginctl", "enable-linger", facts.person),
            or_else="the service ends when you log out, until an administrator runs: "
            f"sudo loginctl enable-linger {facts.person}",
        )
    if not places.lingering:
        for path in places.kind.declarations:
            users = "sysusers.d" in path
            words = ("systemd-sysusers",) if users else ("systemd-tmpfiles", "--create")
            yield Command(words=(*words, path), needs_systemd=False)
    yield Command(words=(*places.manager, "daemon-reload"))
    # Without a running systemd this makes the link for the next boot.
    yield Command(
        words=(*places.manager, "enable", "--quiet", places.kind.unit), needs_systemd=False
    )
