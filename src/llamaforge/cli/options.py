"""Command line options made from the table of job options.

Values pass through as texts: `spec.parse` knows the types and reports all mistakes of a command
line and its job file together, which click would do one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from llamaforge.cli.failures import usage_error
from llamaforge.cli.verbs import SETTINGS
from llamaforge.spec.job import GROUPS, JobSpec
from llamaforge.spec.jobfile import merge, read_job_file
from llamaforge.spec.options import FREE_TEXT, PATHS, Option, options

_METAVARS = {
    "text": "TEXT",
    "integer": "N",
    "number": "X",
    "list": "A,B,...",
    "mapping": "A=B,...",
}

COLUMN = 26
"""Width in characters of the options' column in help."""

HELP_ALL = "llamaforge.help_all"
"""Where a command line remembers that its help is to show advanced options."""


class Value(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """A text that completes to an option's choices or to file names, and is checked later."""

    name = "text"

    def __init__(self, option: Option) -> None:
        self.option = option

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Offers the choices, or lets the shell complete files."""
        if self.option.name in PATHS:
            return [CompletionItem(incomplete, type="file")]
        if self.option.name == "model":
            tiny = [CompletionItem("tiny")] if "tiny".startswith(incomplete) else []
            return tiny or [CompletionItem(incomplete, type="dir")]
        return [CompletionItem(c) for c in self.option.choices if c.startswith(incomplete)]


class JobOption(click.Option):
    """One option of a job on a command line."""

    def __init__(self, option: Option) -> None:
        self.option = option
        flag = option.kind == "flag"
        super().__init__(
            [f"{option.flag}/--no-{option.flag[2:]}" if flag else option.flag, option.name],
            default=None,
            multiple=option.name in FREE_TEXT,
            type=bool if flag else Value(option),
            metavar=None if flag else metavar(option),
            help=help_text(option),
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:  # noqa: ARG002
        """The option as help shows it, in a column of one width for all groups."""
        return f"{written(self.option):<{COLUMN}}", help_text(self.option)


def written(option: Option) -> str:
    """The option with its value: `--lora-r N`, `--[no-]merge`."""
    if option.kind == "flag":
        return f"--[no-]{option.flag[2:]}"
    return f"{option.flag} {metavar(option)}"


def metavar(option: Option) -> str:
    """What stands for the value in help: `[lora|full]`, `N`, `FILE`."""
    if option.choices:
        return "[" + "|".join(option.choices) + "]"
    if option.name in PATHS:
        return "DIR" if option.name.endswith("_dir") else "FILE"
    return "TEXT" if option.name in FREE_TEXT else _METAVARS[option.kind]


def help_text(option: Option) -> str:
    """The option's phrase, and its default in brackets."""
    if option.required:
        return f"{option.text} (required)"
    if option.name in FREE_TEXT:
        return f"{option.text} (may be repeated)"
    return f"{option.text} [{shown}]" if (shown := default_text(option)) else option.text


def default_text(option: Option) -> str:
    """The default as one would write it; empty when there is none to speak of."""
    if option.required or option.default in (None, (), {}) or option.kind == "flag":
        return ""
    if option.kind == "list":
        return ",".join(option.default)
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


class GroupedCommand(click.Command):
    """A command that lists job options by group, the advanced ones only with `--help-all`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one section per group, then the command's own options."""
        everything = ctx.meta.get(HELP_ALL, False)
        shown = [
            param
            for param in self.params
            if isinstance(param, JobOption) and (everything or not param.option.advanced)
        ]
        for group in GROUPS:
            rows = [param.get_help_record(ctx) for param in shown if param.option.group == group]
            if rows:
                with formatter.section(group.capitalize()):
                    formatter.write_dl(rows, col_max=COLUMN)
        with formatter.section("This command"):
            formatter.write_dl(self._own(ctx), col_max=COLUMN)
        if not everything:
            formatter.write_paragraph()
            formatter.write_text("[…] is the default. Options for special cases: --help-all")

    def _own(self, ctx: click.Context) -> list[tuple[str, str]]:
        """What help says about the options that are the command's and not the job's."""
        own = [p for p in self.get_params(ctx) if type(p) is click.Option]
        records = [record for param in own if (record := param.get_help_record(ctx))]
        return [(f"{first:<{COLUMN}}", second) for first, second in records]


def _help_all(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[HELP_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def job_params() -> list[click.Parameter]:
    """The positional job file and every option of a job."""
    return [
        click.Argument(["job_file"], required=False, type=click.Path(), metavar="[JOB.yaml]"),
        *(JobOption(option) for option in options().values()),
        click.Option(
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_help_all,
            help="Show every option and exit.",
        ),
    ]


def with_job_params(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds the job file and the job's options to a command's function."""
    command.__click_params__ = [  # type: ignore[attr-defined]
        *getattr(command, "__click_params__", []),
        *reversed(job_params()),
    ]
    return command


def job_spec_from(job_file: str | None, values: dict[str, Any]) -> JobSpec:
    """The job of a command's parameters; flags win over the file, the file over defaults.

    Args:
        job_file: the positional argument.
        values: all job options as click gives them: None or () where not given.

    Raises:
        SpecError: with all mistakes of the file and the flags.
    """
    given = {key: value for key, value in values.items() if value is not None and value != ()}
    return merge(read_job_file(Path(job_file)) if job_file else None, given)


def parse(argv: Sequence[str], *, prog: str) -> JobSpec:
    """Reads a job from a command line without running anything.

    Args:
        argv: arguments after the program's name.
        prog: the program's name, for help.

    Raises:
        UserError: an option or a value is wrong.
        SystemExit: help was asked for and printed.
    """
    command = GroupedCommand(
        prog,
        params=job_params(),
        help="Fine-tune a model. The options are those of `llamaforge train`.",
        context_settings=SETTINGS,
    )
    try:
        values = command.make_context(prog, list(argv)).params
    except click.exceptions.Exit as end:
        raise SystemExit(end.exit_code) from None
    except click.UsageError as error:
        raise usage_error(error) from None
    return job_spec_from(values.pop("job_file"), values)
