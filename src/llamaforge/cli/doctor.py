"""`llamaforge doctor`: what is wrong with this node, and the commands that mend it.

sudo llamaforge doctor --peer 192.168.1.11
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from rich.console import Console

    from llamaforge.doctor.check import Check
    from llamaforge.doctor.finding import Finding

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


def _codes(
    ctx: click.Context,  # noqa: ARG001
    param: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[CompletionItem]:
    """The codes on Tab, each with its title."""
    from click.shell_completion import CompletionItem

    from llamaforge.doctor.registry import CHECKS

    fitting = [check for check in CHECKS if check.code.startswith(incomplete.upper())]
    return [CompletionItem(check.code, help=check.title) for check in fitting]


@click.command("doctor")
@click.option("--peer", multiple=True, metavar="HOST[:PORT]", help="Look at the way there, too.")
@click.option(
    "--only", multiple=True, metavar="CODE", shell_complete=_codes, help="Just this check."
)
@click.option("--list", "listing", is_flag=True, help="Show all checks and look at nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(peer: tuple[str, ...], only: tuple[str, ...], listing: bool, as_json: bool) -> int:
    """Find out what is wrong with this node, and how to mend it.

    Changes nothing. Exit code: 0 all is well, 1 warnings, 3 errors. --peer and --only may be
    given several times. docs/DOCTOR.md has all checks.
    """
    from llamaforge.doctor.registry import chosen

    checks = chosen(only)
    for named in peer:
        _check_peer(named)
    if listing:
        _list(checks, as_json)
        return 0
    from llamaforge.doctor.examine import examine
    from llamaforge.doctor.finding import EXIT_CODES, worst
    from llamaforge.doctor.machine import Machine
    from llamaforge.doctor.subject import Subject

    machine = Machine()
    findings = examine(machine, Subject(machine, peer), checks)
    code = EXIT_CODES[worst(findings)]
    if as_json:
        _print_json(findings, code)
    else:
        show(findings, as_root=machine.uid == 0)
    return code


def _check_peer(text: str) -> None:
    """Raises UserError where a text can't be a host."""
    from llamaforge.errors import SpecError, UserError
    from llamaforge.spec.fleet import host_and_port

    bare_v6 = text.count(":") > 1 and not text.startswith("[")
    try:
        host_and_port(f"[{text}]" if bare_v6 else text)
    except SpecError as why:
        raise UserError(
            f"--peer is {text!r}",
            hint="it is a host's name or address, with a port where needed: 10.0.0.3:29501",
        ) from why


def _print_json(findings: list[Finding], code: int) -> None:
    import msgspec

    from llamaforge.doctor.finding import worst

    said = {"worst": worst(findings).value, "exit_code": code, "findings": findings}
    click.echo(msgspec.json.encode(said))


def _list(checks: tuple[Check, ...], as_json: bool) -> None:
    if as_json:
        import msgspec

        rows = [{"code": c.code, "title": c.title, "sees": c.sees, "fix": c.fix} for c in checks]
        click.echo(msgspec.json.encode({"checks": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("code", "title", "what it sees", box=None)
    for check in checks:
        table.add_row(check.code, check.title, check.sees)
    Console().print(table)


def show(findings: list[Finding], *, as_root: bool) -> None:
    """Prints findings for a person, worst first, and one line for all that is well."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    bad = [finding for finding in findings if finding.severity.value != "ok"]
    for finding in bad:
        _show_one(console, finding)
    well = len({finding.code for finding in findings}) - len({finding.code for finding in bad})
    counts = [
        f"{n} {name}{'s' if n != 1 else ''}"
        for name in ("error", "warning", "note")
        if (n := sum(finding.severity.value == name for finding in findings))
    ]
    console.print(
        ", ".join([*counts, f"{well} {'check' if well == 1 else 'checks'} found nothing"])
    )
    if not as_root and any(finding.seen.startswith("could not look") for finding in bad):
        console.print("some of it only root can see: sudo llamaforge doctor")


def _show_one(console: Console, finding: Finding) -> None:
    from rich.text import Text

    severity = finding.severity.value
    head = Text.assemble(
        (f"{severity:<8}", COLOURS[severity]), (finding.code, "bold"), f" {finding.title}: "
    )
    console.print(head + Text(_plain(finding.seen)))
    for line in finding.fix:
        console.print(Text(f"    {_plain(line)}", "bold"))
    console.print()


def _plain(text: str) -> str:
    """Without what a terminal would act on: some of it was said by another machine."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
