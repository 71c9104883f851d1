"""A command-line option for each setting of a service, with the words that the setting has."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from llamaforge.spec.fleet import CoordinatorSettings, WorkerSettings, meanings, variables


def setting_options(
    fields: Iterable[str],
    prefix: str = "",
    kind: type[WorkerSettings] | type[CoordinatorSettings] = WorkerSettings,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that adds `--field-name` for each field.

    Values stay text: `spec.fleet` checks them where they come from.

    Args:
        fields: names of fields of `kind`.
        prefix: of the parameters' names.
        kind: whose settings they are.
    """
    every, meaning = variables(kind), meanings(kind)

    def add(function: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(list(fields)):
            flag, text = f"--{name.replace('_', '-')}", meaning[name]
            text = f"{text[0].upper()}{text[1:]}."
            function = click.option(flag, f"{prefix}{name}", metavar=every[name], help=text)(
                function
            )
        return function

    return add
