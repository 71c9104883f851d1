"""What `worker install` and `coordinator install` do alike, from checked options to the last line.

Each of the two declares its options; what is asked becomes a request, the request a plan, and the
plan is shown (`--dry-run`) or carried out.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from llamaforge.errors import LlamaForgeError, UserError
from llamaforge.service.kind import Kind
from llamaforge.service.request import Request, asked_settings, merged

if TYPE_CHECKING:
    from llamaforge.service.apply import Prepared
    from llamaforge.service.machine import Machine
    from llamaforge.service.places import Places

SETTING = "setting_"
"""How the parameters of settings begin, to be told from the service's own."""
FOR_REMOVAL = frozenset({"uninstall", "purge", "lingering", "dry_run", "as_json", "now"})
"""Options that say something beside --uninstall."""
Options = dict[str, Any]


def turns(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that say what is to be done, not how the service shall be."""
    for option in reversed(
        (
            click.option("--reset", is_flag=True, help="Forget what was chosen before."),
            click.option("--no-start", is_flag=True, help="Install and enable, but don't start."),
            click.option("--now", is_flag=True, help="Restart at once, even if a job loses by it."),
            click.option("--dry-run", is_flag=True, help="Show every change; make none."),
            click.option("--uninstall", is_flag=True, help="Remove the service."),
            click.option("--purge", is_flag=True, help="With --uninstall: state and settings too."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        )
    ):
        function = option(function)
    return function


def perform(
    kind: Kind, options: Options, given: dict[str, Any], token: Callable[[], str | None]
) -> None:
    """Installs or removes a service.

    Args:
        kind: which.
        options: the command line's, by parameter.
        given: fields of a `Request` and what the command line says of them; None for nothing.
        token: reads the token that was given, if any; called only when it is needed.

    Raises:
        LlamaForgeError: something can't be had or done; says what.
    """
    from llamaforge.service import lock, places
    from llamaforge.service.machine import Machine

    _refuse_contradictions(options)
    lingering = options.get("lingering", False)
    if os.geteuid() != 0 and not lingering and not options["dry_run"]:
        raise UserError(
            "installing a service of the machine needs root",
            hint=f"run: sudo {kind.install} …   (--dry-run shows what it would do)",
        )
    home, program = str(Path.home()), places.program_of(sys.prefix)
    if lingering:
        where = places.in_home(os.environ, home, program)
    else:
        where = places.on_machine(program, kind)

    def act() -> None:
        if options["uninstall"]:
            _uninstall(options, where, Machine())
        else:
            _install(options, where, Machine(), given, token)

    if options["dry_run"]:
        act()
        return
    try:
        with lock.alone(Path(where.lock)):
            act()
    except OSError as why:
        raise LlamaForgeError(
            f"{why.filename or 'a file'} can't be changed: {why.strerror or why}",
            hint="make room, or make its file system writable, then run this again",
        ) from why


def given_settings(kind: Kind, options: Options) -> dict[str, str]:
    """By variable, the settings that the command line names."""
    named = {name: options[SETTING + field] for field, name in asked_settings(kind).items()}
    return {name: value for name, value in named.items() if value is not None}


def _refuse_contradictions(options: Options) -> None:
    """Of two options that exclude each other neither is silently left out."""
    if options["purge"] and not options["uninstall"]:
        raise UserError("--purge without --uninstall", hint="to remove all: --uninstall --purge")
    if options["no_start"] and options["now"]:
        raise UserError("--no-start and --now contradict each other", hint="leave one of them out")
    meant = [name for name, value in options.items() if value not in (None, False, ())]
    if options["uninstall"] and (others := [name for name in meant if name not in FOR_REMOVAL]):
        flags = ", ".join(f"--{name.removeprefix(SETTING).replace('_', '-')}" for name in others)
        raise UserError(
            f"--uninstall removes the service, and {flags} would change it",
            hint="leave one of them out; --purge removes the settings, too",
        )


def _install(
    options: Options,
    places: Places,
    machine: Machine,
    given: dict[str, Any],
    token: Callable[[], str | None],
) -> None:
    from llamaforge.service import apply, left_behind, manifest, needs, neighbours, show
    from llamaforge.service.plan import make

    before = left_behind.adopted(manifest.read(machine.at(places.manifest)), places, machine)
    before = neighbours.adopted(before, places, machine)
    request = merged(Request() if options["reset"] else before.request, given)
    facts = machine.facts(request.user, places.token, request.group, places.kind.user)
    plan = make(request, facts, places, token=token())
    prepared = apply.prepare(plan, before, facts, places, machine)
    if options["dry_run"]:
        _print(options, show.dry_run(prepared), show.as_json(prepared))
        return
    told = apply.apply(prepared, machine)
    said = [*show.lines(prepared), *_shadow(places, machine), *told]
    said += needs.of(request, places, machine)
    said += _started(options, prepared, machine)
    _print(options, said, {**show.as_json(prepared), "said": said})


def _started(options: Options, prepared: Prepared, machine: Machine) -> list[str]:
    """Starts the service, or restarts it; says what was done."""
    from llamaforge.service import restart

    places = prepared.places
    if not prepared.facts.running:
        return ["systemd does not run here: the service starts at the next boot"]
    if options["no_start"]:
        return [f"the service is enabled, but was not started: systemctl start {_name(places)}"]
    running = restart.look(machine, places)
    turn, why = restart.decide(running, changed=prepared.changes, now=options["now"])
    restart.carry_out(turn, places, machine)
    return [why, *(_next_steps(prepared) if turn is restart.Turn.START else ())]


def _name(places: Places) -> str:
    return places.kind.unit.removesuffix(".service")


def _next_steps(prepared: Prepared) -> list[str]:
    """Where to look now; the mail's test only where mails were asked for just now."""
    places, manager = prepared.places, " ".join(prepared.places.manager)
    steps = [f"what it does: {manager} status {_name(places)}; what is wrong: llamaforge doctor"]
    if not places.kind.runs_ranks:
        steps += [
            "let a machine join: sudo llamaforge coordinator token",
            "let a person give orders: sudo usermod -aG llamaforge NAME, and log in again",
        ]
    if prepared.plan.request.mail_to:
        steps.append("try the mail: sudo /usr/local/libexec/llamaforge/mail --test")
    return steps


def _shadow(places: Places, machine: Machine) -> list[str]:
    """A unit of somebody's own in /etc hides the packaged one."""
    own = f"/etc/systemd/system/{places.kind.unit}"
    if places.lingering or machine.read(own) is None:
        return []
    return [f"note: {own} is yours and goes before the packaged unit; drop-ins apply to it"]


def _uninstall(options: Options, places: Places, machine: Machine) -> None:
    from llamaforge.service import manifest, neighbours, removal

    before = manifest.read(machine.at(places.manifest))
    others = neighbours.files(places, machine)
    plan = removal.plan(before, places, purge=options["purge"], others=others)
    data = msgspec.to_builtins(plan)
    if options["dry_run"]:
        gone = [path for path in (*plan.files, *plan.trees) if machine.at(path).exists()]
        user = [f"remove  user {plan.user}"] if plan.user else []
        _print(options, [*(f"remove  {path}" for path in gone), *user], data)
        return
    running = machine.at("/run/systemd/system").is_dir()
    left = removal.carry_out(plan, places, machine, running=running)
    _print(options, [*left, "the service is removed"], {**data, "left": left})


def _print(options: Options, lines: Iterable[str], data: dict[str, Any]) -> None:
    if options["as_json"]:
        click.echo(json.dumps(data, indent=1))
        return
    for line in lines:
        click.echo(line)
