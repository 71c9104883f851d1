"""`llamaforge worker install`: the worker as a service of this machine, and the way back.

    sudo llamaforge worker install --coordinator 192.168.1.10:29400 --token-file fleet.token
    sudo llamaforge worker install --uninstall --purge

Asking again keeps what was chosen before and changes only what is given.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from llamaforge.cli.setting_options import setting_options
from llamaforge.errors import LlamaForgeError, UserError
from llamaforge.service.request import CPU_POLICIES, NUMA_POLICIES, Request, asked_settings, merged

if TYPE_CHECKING:
    from llamaforge.service.apply import Prepared
    from llamaforge.service.machine import Machine
    from llamaforge.service.places import Places

FLAGS: tuple[str, ...] = (
    *("user", "group", "memory", "cpu", "nice", "cpu_policy", "numa_node", "numa_policy"),
    *("cpus", "exec", "workdir", "mail_to"),
)
"""Options that are fields of a `Request` as they stand."""
FOR_REMOVAL = frozenset({"uninstall", "purge", "lingering", "dry_run", "as_json", "now"})
"""Options that say something beside --uninstall."""


@click.command("install")
@setting_options(asked_settings(), prefix="setting_")
@click.option("--token-file", metavar="FILE", help="The fleet's token; - reads standard input.")
@click.option("--user", metavar="NAME", help="Run as this person, not as the user llamaforge.")
@click.option("--group", metavar="NAME", help="With --user: another group than the person's.")
@click.option("--memory", metavar="SIZE", help="Most memory of worker and ranks: 8G or 80%.")
@click.option("--cpu", metavar="PERCENT", help="Most processor time: 150% is one and a half cores.")
@click.option("--nice", metavar="N", help="Priority, from -20 (first) to 19 (last).")
@click.option("--cpu-policy", type=click.Choice((*CPU_POLICIES, "")), help="Kernel's scheduling.")
@click.option("--numa-node", metavar="LIST", help="Take memory from these NUMA nodes: 0 or 0-1.")
@click.option("--numa-policy", type=click.Choice((*NUMA_POLICIES, "")), help="How; default bind.")
@click.option("--cpus", metavar="LIST", help="Run on these processors only: 0-7,16.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable for the ranks.")
@click.option("--path", multiple=True, metavar="DIR", help="A folder to read and write.")
@click.option("--workdir", metavar="DIR", help="Working directory.")
@click.option("--exec", metavar="LINE", help="Run this instead of the worker, e.g. torchrun.")
@click.option("--mail-to", metavar="ADDRESS", help="Mail when the worker fails for good.")
@click.option("--lingering", is_flag=True, help="A service of your own, without root.")
@click.option("--reset", is_flag=True, help="Forget what was chosen before.")
@click.option("--no-start", is_flag=True, help="Install and enable, but don't start.")
@click.option("--now", is_flag=True, help="Restart at once, even if a job loses by it.")
@click.option("--dry-run", is_flag=True, help="Show every file and command; change nothing.")
@click.option("--uninstall", is_flag=True, help="Remove the service.")
@click.option("--purge", is_flag=True, help="With --uninstall: state, settings and token, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(**options: Any) -> None:
    """Install the worker as a service of this machine.

    Every choice becomes a line in /etc/llamaforge/worker.conf or a drop-in of the unit. Asking
    again is harmless: what is not given stays as it was, an empty value takes a choice back, and a
    file that somebody edited is never touched.
    """
    from llamaforge.service import lock, places
    from llamaforge.service.machine import Machine

    _refuse_contradictions(options)
    lingering = options["lingering"]
    if os.geteuid() != 0 and not lingering and not options["dry_run"]:
        raise UserError(
            "installing a service of the machine needs root",
            hint="run: sudo llamaforge worker install …   (--dry-run shows what it would do)",
        )
    if os.geteuid() == 0 and lingering:
        raise UserError(
            "--lingering is for a person, and you are root: worker and ranks never run as root",
            hint="leave it out, or run this as that person without sudo",
        )
    home, program = str(Path.home()), places.program_of(sys.prefix)
    where = places.in_home(os.environ, home, program) if lingering else places.on_machine(program)
    act = _uninstall if options["uninstall"] else _install
    if options["dry_run"]:
        act(options, where, Machine())
        return
    try:
        with lock.alone(Path(where.lock)):
            act(options, where, Machine())
    except OSError as why:
        raise LlamaForgeError(
            f"{why.filename or 'a file'} can't be changed: {why.strerror or why}",
            hint="make room, or make its file system writable, then run this again",
        ) from why


def _refuse_contradictions(options: dict[str, Any]) -> None:
    """Of two options that exclude each other neither is silently left out."""
    if options["purge"] and not options["uninstall"]:
        raise UserError("--purge without --uninstall", hint="to remove all: --uninstall --purge")
    if options["no_start"] and options["now"]:
        raise UserError("--no-start and --now contradict each other", hint="leave one of them out")
    meant = [name for name, value in options.items() if value not in (None, False, ())]
    if options["uninstall"] and (others := [name for name in meant if name not in FOR_REMOVAL]):
        flags = ", ".join(f"--{name.removeprefix('setting_').replace('_', '-')}" for name in others)
        raise UserError(
            f"--uninstall removes the service, and {flags} would change it",
            hint="leave one of them out; --purge removes the settings, too",
        )


def _install(options: dict[str, Any], places: Places, machine: Machine) -> None:
    from llamaforge.service import apply, left_behind, manifest, needs, restart, show
    from llamaforge.service.plan import make

    before = left_behind.adopted(manifest.read(machine.at(places.manifest)), places, machine)
    request = merged(Request() if options["reset"] else before.request, _given(options))
    facts = machine.facts(request.user, places.token, request.group)
    plan = make(request, facts, places, token=_token(options["token_file"]))
    prepared = apply.prepare(plan, before, facts, places, machine)
    if options["dry_run"]:
        _print(options, show.dry_run(prepared), show.as_json(prepared))
        return
    told = apply.apply(prepared, machine)
    said = [*show.lines(prepared), *_shadow(places, machine), *told]
    said += needs.of(request, places, machine)
    if facts.running and not options["no_start"]:
        running = restart.look(machine, places)
        turn, why = restart.decide(running, changed=prepared.changes, now=options["now"])
        restart.carry_out(turn, places, machine)
        said.append(why)
        if turn is restart.Turn.START:
            said += _next_steps(request, places)
    else:
        said.append(_not_started(prepared))
    _print(options, said, {**show.as_json(prepared), "said": said})


def _not_started(prepared: Prepared) -> str:
    if not prepared.facts.running:
        return "systemd does not run here: the service starts at the next boot"
    return "the service is enabled, but was not started: systemctl start llamaforge-worker"


def _next_steps(request: Request, places: Places) -> list[str]:
    """Where to look now; the mail's test only where mails were asked for just now."""
    manager = " ".join(places.manager)
    steps = [f"what it does: {manager} status llamaforge-worker; what is wrong: llamaforge doctor"]
    if request.mail_to:
        steps.append("try the mail: sudo /usr/local/libexec/llamaforge/mail --test")
    return steps


def _shadow(places: Places, machine: Machine) -> list[str]:
    """A unit of somebody's own in /etc hides the packaged one."""
    from llamaforge.service.places import UNIT

    own = f"/etc/systemd/system/{UNIT}"
    if places.lingering or machine.read(own) is None:
        return []
    return [f"note: {own} is yours and goes before the packaged unit; drop-ins apply to it"]


def _uninstall(options: dict[str, Any], places: Places, machine: Machine) -> None:
    from llamaforge.service import manifest, removal

    before = manifest.read(machine.at(places.manifest))
    plan = removal.plan(before, places, purge=options["purge"])
    data = msgspec.to_builtins(plan)
    if options["dry_run"]:
        gone = [path for path in (*plan.files, *plan.trees) if machine.at(path).exists()]
        user = [f"remove  user and group {plan.user}"] if plan.user else []
        _print(options, [*(f"remove  {path}" for path in gone), *user], data)
        return
    running = machine.at("/run/systemd/system").is_dir()
    left = removal.carry_out(plan, places, machine, running=running)
    _print(options, [*left, "the service is removed"], {**data, "left": left})


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """What the command line says of a request; None for what it does not say."""
    given: dict[str, Any] = {name: options[name] for name in FLAGS}
    named = {asked_settings()[field]: options[f"setting_{field}"] for field in asked_settings()}
    given["settings"] = {name: value for name, value in named.items() if value is not None}
    given["env"] = dict(_pair(text) for text in options["env"])
    given["paths"] = options["path"] or None
    return given


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--env is {text!r}", hint="give NAME=VALUE; NAME= takes one back")
    return name, value


def _token(file: str | None) -> str | None:
    """The token in a file, or on standard input for `-`; it is in no argument and no variable."""
    if file is None:
        return None
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as why:
        reason = why.strerror if isinstance(why, OSError) else "it is no text"
        raise UserError(
            f"--token-file {file} can't be read: {reason}",
            hint="copy `token` from the coordinator's state folder; - reads standard input",
        ) from why
    token = text.strip()
    if not token or len(token.split()) != 1:
        raise UserError(
            f"--token-file {file} holds no token",
            hint="it is one word, as in the coordinator's file",
        )
    return token


def _print(options: dict[str, Any], lines: Iterable[str], data: dict[str, Any]) -> None:
    if options["as_json"]:
        click.echo(json.dumps(data, indent=1))
        return
    for line in lines:
        click.echo(line)
