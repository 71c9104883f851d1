"""The verbs of `llamaforge`, imported only when used, so that `llamaforge --help` stays instant.

Each verb's module exposes a click command named `command`; its one line stands here too, because
reading it from the command would import every verb. A test keeps both equal.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "token_normalize_func": lambda token: token.replace("_", "-"),
}
"""How every verb reads its line; `--batch_size` means `--batch-size`, as both are in use."""


class Verb(NamedTuple):
    """Where a verb's command is and what it does in one line."""

    section: str
    module: str
    line: str


VERBS: dict[str, Verb] = {
    "train": Verb("Train", "train", "Fine-tune a model, on the fleet or on this machine."),
    "try": Verb("Train", "try_", "Compare answers before and after a job."),
    "demo": Verb("Train", "demo", "Fine-tune the shipped model on two workers and show the gain."),
    "submit": Verb(
        "Jobs", "submit", "Queue a fine-tuning job on the fleet, print its id, and return."
    ),
    "run": Verb("Jobs", "run", "Run a torch.distributed script on the fleet, as torchrun would."),
    "jobs": Verb("Jobs", "jobs", "List the fleet's jobs."),
    "status": Verb("Jobs", "status", "Show the fleet's nodes and jobs, or one job."),
    "logs": Verb("Jobs", "logs", "Show what a job's ranks print, from the beginning."),
    "attach": Verb("Jobs", "attach", "Watch a job; Ctrl-C leaves it alone."),
    "cancel": Verb("Jobs", "cancel", "Stop jobs; `llamaforge resume` goes on with one."),
    "resume": Verb(
        "Jobs", "resume", "Queue a stopped or failed job again, from its newest checkpoint."
    ),
    "fetch": Verb("Jobs", "fetch", "Copy a job's files here; by default into runs/JOB."),
    "events": Verb("Jobs", "events", "Show what has happened in the fleet, and why."),
    "up": Verb("Fleet", "up", "Start a coordinator and workers on this machine."),
    "down": Verb("Fleet", "down", "Stop what `up` started."),
    "nodes": Verb("Fleet", "nodes", "List the fleet's nodes, or say what one should do."),
    "drain": Verb("Fleet", "drain", "Let a node finish its job and give it nothing new."),
    "worker": Verb("Fleet", "worker", "Run this machine's worker, install it, or let it join."),
    "coordinator": Verb(
        "Fleet", "coordinator", "Run or install the coordinator, or make a token for its fleet."
    ),
    "login": Verb("Fleet", "login", "Use a fleet on another machine, with a token from there."),
    "people": Verb("Fleet", "people", "List who may use the fleet from elsewhere, or refuse one."),
    "doctor": Verb("Fleet", "doctor", "Find out what is wrong with this node, and how to mend it."),
    "clean": Verb("Fleet", "clean", "Remove what caches hold beyond their limit."),
    "completion": Verb(
        "Shell", "completion", "Print a script that completes llamaforge in a shell."
    ),
}


class Verbs(click.Group):
    """A group that knows its verbs by name and imports a verb when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All verbs, in the order of the table."""
        return list(VERBS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """Imports a verb's module; None when there is no such verb."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        command: click.Command = import_module(f"llamaforge.cli.{verb.module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the verb of `args`, or says which one was probably meant."""
        name = args[0]
        if name not in VERBS and not ctx.resilient_parsing and not name.startswith("-"):
            meant = difflib.get_close_matches(name, VERBS, n=1)
            also = f"did you mean {meant[0]}?" if meant else "the verbs are " + ", ".join(VERBS)
            raise click.UsageError(f"no such verb {name!r}; {also}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offers verbs and the program's own options, without importing any verb."""
        from click.shell_completion import CompletionItem

        verbs = [
            CompletionItem(name, help=verb.line)
            for name, verb in VERBS.items()
            if name.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the verbs by section, without importing any."""
        for section in dict.fromkeys(verb.section for verb in VERBS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, verb.line) for name, verb in VERBS.items() if verb.section == section]
                )
