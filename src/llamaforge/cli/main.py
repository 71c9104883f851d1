"""The `llamaforge` program: finds the verb, runs it, and is the only place that catches errors.

llamaforge --help
llamaforge train --model tiny --dataset examples/datasets/alpaca_1k.jsonl
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from llamaforge import __version__
from llamaforge.cli.failures import exit_code
from llamaforge.cli.verbs import SETTINGS, Verbs


@click.group(cls=Verbs, context_settings=SETTINGS)
@click.version_option(__version__, "-V", "--version", message="llamaforge %(version)s")
def program() -> None:
    """Turn the Linux machines you own into one training cluster for Llama-family models.

    `llamaforge demo` shows everything once; `llamaforge VERB --help` explains a verb.
    """


def run(args: Sequence[str]) -> int:
    """Runs one command line.

    Returns:
        The exit code: 0, or as `cli.failures` says.
    """
    before_dashes = args[: args.index("--")] if "--" in args else args
    return exit_code(
        lambda: program.main(list(args), prog_name="llamaforge", standalone_mode=False),
        as_json="--json" in before_dashes,
    )


def main() -> None:
    """The entry point of `llamaforge` and `python -m llamaforge`."""
    sys.exit(run(sys.argv[1:]))
