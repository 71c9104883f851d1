"""Writes docs/CLI.md from the verbs and the table of job options, so that it can't be wrong.

python -m llamaforge.cli.reference > docs/CLI.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from llamaforge.cli.options import GroupedCommand, default_text, metavar
from llamaforge.cli.verbs import SETTINGS, VERBS, Verbs
from llamaforge.spec.job import GROUPS
from llamaforge.spec.options import FREE_TEXT, Option, options

_HEAD = """\
# Command line

Made by `python -m llamaforge.cli.reference > docs/CLI.md`; a test compares it with the code.

Options may be written with dashes or underscores. Wrong input is answered with one message that
names every mistake, and exit code 2. Other exit codes: 0 done, 1 something went wrong meanwhile,
130 stopped with Ctrl-C. With `--json` a verb prints one JSON object a line, errors included.
"""

_JOB = """\
## Options of a job

On the command line of `llamaforge train` and `distributed_train.py` as `--lora-r 16`, in a job
file (YAML or TOML) as `lora_r: 16`. Flags win over the file, the file over defaults. In a job
file, relative paths are relative to the file. `none` unsets an option that may be absent; a list
is comma separated or a list of the file's format; a mapping is `a=b,c=d` or a mapping of the
file's format. The resolved `job.yaml` of a finished job is a job file, too.
"""


def markdown() -> str:
    """The whole page."""
    parts = [_HEAD, "## Verbs\n"]
    context = click.Context(Verbs(), info_name="llamaforge", **SETTINGS)
    for name in VERBS:
        command = context.command.get_command(context, name)  # type: ignore[attr-defined]
        parts += _verb(command, context, name)
    parts.append(_JOB)
    for group in GROUPS:
        parts.append(_table(group))
    return "\n".join(parts)


def _verb(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    """A verb and its sub-verbs: usage, text, own options."""
    context = click.Context(command, info_name=name, parent=parent)
    yield f"### `{context.command_path}`\n"
    yield f"{_text(command)}\n"
    yield f"    {_usage(command, context)}\n"
    if isinstance(command, GroupedCommand):
        yield "Takes the options of a job (below) and these:\n"
    if isinstance(command, click.Group):
        yield from _options(command, context)
        for sub in command.list_commands(context):
            found = command.get_command(context, sub)
            if found is not None:
                yield from _verb(found, context, sub)
        return
    yield from _options(command, context)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """A command's own options."""
    rows = [p for p in command.params if type(p) is click.Option and not p.hidden]
    for option in rows:
        record = option.get_help_record(context)
        if record:
            yield f"- `{record[0]}`: {record[1]}"
    if rows:
        yield ""


def _text(command: click.Command) -> str:
    """A command's help as paragraphs, without click's marks."""
    text = (command.help or "").replace("\b", "").split("\f")[0].strip()
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n\n".join(paragraphs)


def _usage(command: click.Command, context: click.Context) -> str:
    return " ".join([context.command_path, *command.collect_usage_pieces(context)])


def _table(group: str) -> str:
    rows = [option for option in options().values() if option.group == group]
    lines = [f"### {group.capitalize()}\n", "| option | value | default | |", "|---|---|---|---|"]
    return "\n".join([*lines, *(_row(option) for option in rows), ""])


def _row(option: Option) -> str:
    flag = f"--[no-]{option.flag[2:]}" if option.kind == "flag" else option.flag
    if option.kind == "flag":
        value = "flag"
    elif option.kind in ("integer", "number", "choice"):
        value = option.allowed
    else:
        value = metavar(option)
    if option.required:
        default = "required"
    elif option.kind == "flag":
        default = "on" if option.default else "off"
    else:
        default = f"`{shown}`" if (shown := default_text(option)) else ""
    text = option.text + (" (may be repeated)" if option.name in FREE_TEXT else "")
    return f"| `{flag}` | {value} | {default} | {text} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
