"""`llamaforge worker install`: the worker as a service of this machine, and the way back.

    sudo llamaforge worker install --coordinator 192.168.1.10:29400 --token-file token
    sudo llamaforge worker install --uninstall --purge

Asking again keeps what was chosen before and changes only what is given.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from llamaforge.cli.service_install import SETTING, given_settings, perform, turns
from llamaforge.cli.setting_options import setting_options
from llamaforge.errors import UserError
from llamaforge.service.kind import WORKER
from llamaforge.service.request import CPU_POLICIES, NUMA_POLICIES, asked_settings

FLAGS: tuple[str, ...] = (
    *("user", "group", "memory", "cpu", "nice", "cpu_policy", "numa_node", "numa_policy"),
    *("cpus", "exec", "workdir", "mail_to"),
)
"""Options that are fields of a `Request` as they stand."""


@click.command("install")
@setting_options(asked_settings(), prefix=SETTING)
@click.option("--token-file", metavar="FILE", help="A join token; - reads standard input.")
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
@turns
def command(**options: Any) -> None:
    """Install the worker as a service of this machine.

    Every choice becomes a line in /etc/llamaforge/worker.conf or a drop-in of the unit. Asking
    again is harmless: what is not given stays as it was, an empty value takes a choice back, and a
    file that somebody edited is never touched.
    """
    if os.geteuid() == 0 and options["lingering"]:
        raise UserError(
            "--lingering is for a person, and you are root: worker and ranks never run as root",
            hint="leave it out, or run this as that person without sudo",
        )
    perform(WORKER, options, _given(options), lambda: _token(options["token_file"]))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """What the command line says of a request; None for what it does not say."""
    given: dict[str, Any] = {name: options[name] for name in FLAGS}
    given["settings"] = given_settings(WORKER, options)
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
            hint="`llamaforge coordinator token` on the coordinator makes one; "
            "- reads standard input",
        ) from why
    token = text.strip()
    if not token or len(token.split()) != 1:
        raise UserError(
            f"--token-file {file} holds no token",
            hint="it is one word, as `llamaforge coordinator token` prints it",
        )
    return token
