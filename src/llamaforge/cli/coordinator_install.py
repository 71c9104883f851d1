"""`llamaforge coordinator install`: the coordinator as a service of this machine, and the way back.

    sudo llamaforge coordinator install
    sudo llamaforge coordinator install --public forge.example.org:29400
    sudo llamaforge coordinator install --uninstall --purge

Asking again keeps what was chosen before and changes only what is given.
"""

from __future__ import annotations

from typing import Any

import click

from llamaforge.cli.service_install import SETTING, given_settings, perform, turns
from llamaforge.cli.setting_options import setting_options
from llamaforge.service.kind import COORDINATOR
from llamaforge.service.request import asked_settings
from llamaforge.spec.fleet import CoordinatorSettings

FLAGS = ("memory", "cpu", "nice", "mail_to")
"""Options that are fields of a `Request` as they stand."""


@click.command("install")
@setting_options(asked_settings(COORDINATOR), prefix=SETTING, kind=CoordinatorSettings)
@click.option("--memory", metavar="SIZE", help="Most memory: 2G or 20%.")
@click.option("--cpu", metavar="PERCENT", help="Most processor time: 150% is one and a half cores.")
@click.option("--nice", metavar="N", help="Priority, from -20 (first) to 19 (last).")
@click.option("--mail-to", metavar="ADDRESS", help="Mail when the coordinator fails for good.")
@turns
def command(**options: Any) -> None:
    """Install the coordinator as a service of this machine.

    It listens on all addresses; who has no certificate of its authority gets none of its answers.
    Every choice becomes a line in /etc/llamaforge/coordinator.conf or a drop-in of the unit. Asking
    again is harmless: what is not given stays as it was, an empty value takes a choice back, and a
    file that somebody edited is never touched.
    """
    given: dict[str, Any] = {name: options[name] for name in FLAGS}
    given["settings"] = given_settings(COORDINATOR, options)
    perform(COORDINATOR, options, given, lambda: None)
