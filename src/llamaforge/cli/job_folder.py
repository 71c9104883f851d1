"""From what a person calls a finished job to its folder: a path, or a name under `runs/`."""

from __future__ import annotations

import difflib
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from llamaforge.errors import UserError

RUNS = Path("runs")
"""Where jobs' folders are unless `--output-dir` says otherwise."""


def find_job(name: str) -> Path:
    """The folder of a job.

    Raises:
        UserError: there is none of that name, or the folder holds no finished job.
    """
    folder = next((path for path in (Path(name), RUNS / name) if path.is_dir()), None)
    if folder is None:
        raise UserError(f"no job {name!r} here or under {RUNS}/", hint=_others(name))
    if not (folder / "job.yaml").is_file():
        raise UserError(f"{folder} is not a job's folder: it has no job.yaml", hint=_others(name))
    if not (folder / "adapter_config.json").is_file() and not (folder / "model").is_dir():
        raise UserError(
            f"job {folder} has no trained model yet",
            hint="let it finish first; a stopped job goes on with --auto-resume",
        )
    return folder


def job_names() -> list[str]:
    """Names under `runs/`, newest first."""
    jobs = [path.parent for path in RUNS.glob("*/job.yaml")]
    jobs.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    return [folder.name for folder in jobs]


class JobName(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """A job's name or folder; completes the names under `runs/`."""

    name = "job"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Offers names, and folders where no name fits."""
        names = [CompletionItem(name) for name in job_names() if name.startswith(incomplete)]
        return names or [CompletionItem(incomplete, type="dir")]


def _others(name: str) -> str:
    names = job_names()
    if not names:
        return "train one first: llamaforge train --help"
    close = difflib.get_close_matches(Path(name).name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"jobs here: {', '.join(names[:5])}"
