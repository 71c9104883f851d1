"""A script from the folder here to its end on the fleet: pack, submit, follow, fetch."""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from llamaforge import __version__
from llamaforge.bundle import code_folder
from llamaforge.bundle.code_folder import CodeFolder
from llamaforge.cli import words
from llamaforge.cli.asking import put
from llamaforge.cli.ending import say_detached
from llamaforge.cli.failures import INTERRUPTED
from llamaforge.cli.fetching import fetch
from llamaforge.cli.following import Outcome, raise_if_failed, watch
from llamaforge.cli.job_folder import RUNS
from llamaforge.cli.launch import any_fleet, shown_path, user_store
from llamaforge.cli.progress import JsonView, LineView, View, sentence
from llamaforge.cli.tally import Tally
from llamaforge.errors import UserError
from llamaforge.spec.script import ScriptJob
from llamaforge.spec.sizes import parse_size
from llamaforge.spec.states import JobState
from llamaforge.spec.wishes import Wishes
from llamaforge.wire.api import Submission
from llamaforge.wire.client import FleetClient
from llamaforge.wire.updates import JobUpdate, LogLine

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked for."""

    command: tuple[str, ...]
    folder: Path
    wishes: Wishes
    environment: dict[str, str]
    max_restarts: int = 3
    name: str | None = None
    max_size: str | None = None
    output_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A script that is ready to be submitted."""

    script: ScriptJob
    code: CodeFolder
    output_dir: Path


def prepare(request: Request) -> Prepared:
    """Looks at the folder and the script; nothing is sent yet.

    Raises:
        UserError: what was asked can't be done as written.
    """
    limit = parse_size(request.max_size, source="--max-size") if request.max_size else None
    code = code_folder.look(request.folder, size_limit=limit or code_folder.SIZE_LIMIT)
    command = _command(request, code)
    job_id = _name(request.name) or _new_id(command)
    output = request.output_dir or RUNS / job_id
    if output.is_dir() and any(output.iterdir()):
        raise UserError(
            f"{output} holds files already", hint="choose another --name or --output-dir"
        )
    script = ScriptJob(
        id=job_id,
        command=command,
        environment=request.environment,
        executable=code.executable,
        links=code.links,
        wishes=request.wishes,
        max_restarts=request.max_restarts,
        version=__version__,
        created=time.time(),
    )
    return Prepared(script=script, code=code, output_dir=output)


def show(prepared: Prepared, *, as_json: bool) -> None:
    """Lists what would travel, the biggest files last."""
    code = prepared.code
    if as_json:
        put(
            {
                "type": "run",
                "job": prepared.script.id,
                "command": prepared.script.command,
                "folder": str(code.root),
                "size": code.size,
                "files": {file.path: file.size for file in code.files},
                "links": code.links,
                "left_out": code.left_out,
            }
        )
        return
    for file in sorted(code.files, key=lambda file: file.size):
        click.echo(f"{words.size(file.size):>10}  {file.path}")
    for path, to in code.links.items():
        click.echo(f"{'link':>10}  {path} -> {to}")
    total = f"{words.count(len(code.files), 'file')}, {words.size(code.size)}"
    click.echo(f"{total}, from {code.root}; {code.left_out} ignored; nothing was sent")


def submit(prepared: Prepared, fleet: Path | None, *, as_json: bool) -> int:
    """Queues the script and prints its id. Returns the exit code.

    Raises:
        FleetError: no fleet runs, or it can't be reached.
        UserError: it refuses.
    """

    async def work() -> str:
        async with FleetClient.open(fleet) as client:
            return await _submit(prepared, client, LineView(sys.stderr))

    job_id = asyncio.run(work())
    if as_json:
        put({"type": "submitted", "job": job_id})
    else:
        click.echo(job_id)
    return 0


def run(prepared: Prepared, fleet: Path | None, *, as_json: bool) -> int:
    """Runs the script to its end, or until the person detaches. Returns the exit code.

    Raises:
        FleetError: the coordinator is gone.
        JobFailed, UserError: the script failed.
        KeyboardInterrupt: interrupted before it was submitted, or three times.
    """
    view: View = JsonView(sys.stdout) if as_json else ScriptView(sys.stdout)
    with view, any_fleet(view.say, fleet) as client:
        try:
            outcome = asyncio.run(_run(prepared, client, view))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    if outcome is None:
        say_detached(prepared.script.id, as_json=as_json)
        return 0
    raise_if_failed(outcome)
    _say_end(outcome, as_json=as_json)
    if outcome.ended.state is JobState.DONE:
        return 0
    return INTERRUPTED if outcome.interrupted else 1


class ScriptView(LineView):
    """The script's own lines on standard output; what is said about the job goes to the other."""

    def show(self, update: JobUpdate) -> None:
        """Prints a rank's line behind its node and number, as `llamaforge logs` does."""
        if isinstance(update, LogLine):
            click.echo(f"{update.node}/{update.rank}| {update.text.rstrip()}")
        elif text := sentence(update, verbose=False):
            self.say(text)

    def say(self, text: str) -> None:
        """Prints one line at once."""
        click.echo(text, err=True)


async def _run(prepared: Prepared, client: FleetClient, view: View) -> Outcome | None:
    async with client:
        job_id = await _submit(prepared, client, view)
        tally = Tally(0)
        view.begin(tally)
        watched = await watch(client, job_id, tally, view)
        if watched.ended is None:
            return None
        folder = Path(watched.ended.output_dir)
        if client.keeps_folders:
            folder = prepared.output_dir
            await fetch(client, job_id, folder)
        return Outcome(
            job_id=job_id,
            tally=tally,
            ended=watched.ended,
            interrupted=watched.cancelled,
            folder=folder,
        )


async def _submit(prepared: Prepared, client: FleetClient, view: View) -> str:
    client.tell = view.say
    store = user_store()
    manifest = await asyncio.to_thread(code_folder.add, prepared.code, store)
    here = "" if client.keeps_folders else str(prepared.output_dir.absolute())
    submission = Submission(
        script=prepared.script,
        manifest=manifest,
        wishes=prepared.script.wishes,
        output_dir=here,
    )
    return await client.send(
        submission, store, lambda progress: view.moved("upload", progress.sent, progress.total)
    )


def _say_end(outcome: Outcome, *, as_json: bool) -> None:
    ended = outcome.ended
    if as_json:
        said = {"type": "summary", "job": outcome.job_id, "state": ended.state.value}
        put({**said, "reason": ended.reason, "output_dir": str(outcome.folder)})
        return
    where = shown_path(outcome.folder)
    click.echo(f"{ended.state.value}: {outcome.job_id}; its files are in {where}", err=True)


def _command(request: Request, code: CodeFolder) -> tuple[str, ...]:
    """The command as it is on a node, where the folder is the working directory.

    Raises:
        UserError: there is no such script, or it doesn't travel.
    """
    script, *arguments = request.command
    if script == "-m":
        if not arguments:
            raise UserError("-m needs a module", hint="llamaforge run -- -m package.module [ARGS]")
        return request.command
    if script.startswith("-"):
        raise UserError(
            f"{script} is not a script", hint="options of `run` stand before --, the script after"
        )
    path = _in_folder(script, code)
    if not code.has(path):
        raise UserError(
            f"{script} does not travel: {code_folder.IGNORE_FILE} or .gitignore names it",
            hint="`llamaforge run --dry-run` lists what does",
        )
    return (path, *arguments)


def _in_folder(script: str, code: CodeFolder) -> str:
    """A script's path below the folder. Raises UserError when it is not there."""
    for place in (Path.cwd(), code.root):
        whole = (place / script).absolute()
        if whole.is_file():
            break
    else:
        raise UserError(
            f"there is no script {script} in {shown_path(code.root)}",
            hint="llamaforge run [OPTIONS] -- script.py [ARGS]; --folder names another folder",
        )
    for seen in (whole, whole.parent.resolve() / whole.name):
        if code.root in seen.parents and ".." not in seen.parts:
            return seen.relative_to(code.root).as_posix()
    raise UserError(
        f"{script} is not in {code.root}, which is what travels",
        hint=f"name its folder: --folder {shown_path(whole.parent)}",
    )


def _name(name: str | None) -> str:
    """The name that was asked for. Raises UserError when no job can have it."""
    if name is not None and not _NAME.fullmatch(name):
        raise UserError(
            f"--name is {name!r}",
            hint="letters, digits, '.', '_' and '-', 64 at most, beginning with a letter or digit",
        )
    return name or ""


def _new_id(command: tuple[str, ...]) -> str:
    script = command[1].rpartition(".")[2] if command[0] == "-m" else Path(command[0]).stem
    stem = re.sub(r"[^A-Za-z0-9]+", "-", script).strip("-")[:40] or "run"
    return f"{stem}-{secrets.token_hex(2)}"
