"""`llamaforge train --dry-run`: what would be trained, what it needs, and how two rows look.

Everything is resolved as for a real run, in a temporary folder that is removed again.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import msgspec

from llamaforge.bundle.checkpoints import free_bytes_needed
from llamaforge.bundle.make import Prepared, make_bundle
from llamaforge.bundle.models import find_model
from llamaforge.bundle.store import BlobStore
from llamaforge.cli import words
from llamaforge.cli.engine import Engine
from llamaforge.cli.launch import with_whole_paths
from llamaforge.errors import LlamaForgeError, UserError
from llamaforge.spec.job import JobSpec
from llamaforge.spec.memory import Memory, estimate


def show(spec: JobSpec, *, as_json: bool) -> None:
    """Resolves a job and prints it; leaves nothing behind.

    Raises:
        UserError: the job could not run as asked.
    """
    from rich.console import Console

    spinner = nullcontext() if as_json else Console(stderr=True).status("reading model and rows")
    with spinner, tempfile.TemporaryDirectory(prefix="llamaforge-dry-run-") as name:
        folder = Path(name)
        store = BlobStore(folder / "store")
        prepared = make_bundle(with_whole_paths(spec), store, cache=folder / "cache")
        store.lay_out(prepared.manifest, folder / "bundle")
        memory = _memory(spec)
        preview = _preview(prepared, folder)
    if as_json:
        click.echo(msgspec.json.encode(_plain(prepared, memory, preview)).decode())
    else:
        _print(prepared, memory, preview)


def _memory(spec: JobSpec) -> Memory:
    found = find_model(spec.model, spec.revision)
    return estimate(found.config, spec=spec, parameters=found.parameters)


def _preview(prepared: Prepared, folder: Path) -> dict[str, Any]:
    """Lint and two rows as the engine's tokenizer and chat template see them."""
    bundle, file = folder / "bundle", folder / "job.json"
    file.write_bytes(msgspec.json.encode(prepared.job))
    (bundle / "data" / "scan.json").write_bytes(msgspec.json.encode(prepared.scan))
    with Engine("preview", f"--bundle={bundle}", f"--job={file}") as engine:
        said = engine.hear() or {}
    if "error" in said:
        kind = UserError if said["user_error"] else LlamaForgeError
        raise kind(said["error"], hint=said["hint"])
    return said


def _plain(prepared: Prepared, memory: Memory, preview: dict[str, Any]) -> dict[str, Any]:
    """Everything that a dry run says, as one object."""
    return {
        "type": "dry_run",
        "job": msgspec.to_builtins(prepared.job),
        "output_dir": str(prepared.output_dir),
        "checkpoint_dir": str(prepared.checkpoint_dir),
        "resume_step": prepared.resume.step if prepared.resume else None,
        "scan": msgspec.to_builtins(prepared.scan),
        "notes": prepared.notes,
        "memory_per_rank": {**msgspec.to_builtins(memory), "total": memory.total},
        "disk": disk_needed(prepared, memory),
        "preview": preview,
    }


def disk_needed(prepared: Prepared, memory: Memory) -> int:
    """Bytes for the checkpoints, the adapter, and the model where one is written."""
    spec = prepared.job.spec
    kept = free_bytes_needed(prepared.checkpoint_dir, memory.checkpoint, spec.keep_last)
    adapter = memory.trained if spec.method == "lora" else 0
    return kept + adapter + (memory.weights if spec.method == "full" or spec.merge else 0)


def _print(prepared: Prepared, memory: Memory, preview: dict[str, Any]) -> None:
    job, lengths = prepared.job, preview["lengths"]
    click.echo(msgspec.yaml.encode(job).decode().rstrip())
    click.echo()
    per_epoch = f"{words.count(job.steps_per_epoch, 'step')} of {job.rows_per_step} rows per epoch"
    about = "about " if lengths["estimated"] else ""
    spread = f"{lengths['mean']:.0f} on average, {lengths['longest']} at most"
    lines = {
        "rows": f"{job.rows:,} to train, {job.heldout_rows:,} held out",
        "tokens": f"{about}{lengths['total']:,} per epoch; per row {spread}",
        "steps": f"{job.total_steps:,} ({per_epoch})",
        "memory": f"{words.size(memory.total)} per rank ({_parts(memory)})",
        "disk": f"{words.size(disk_needed(prepared, memory))} in {prepared.checkpoint_dir}",
        "results": str(prepared.output_dir),
    }
    for name, text in lines.items():
        click.echo(f"{name:<9} {text}")
    for note in (*prepared.notes, *preview["lint_lines"]):
        click.echo(f"note      {note}")
    for row in preview["rows"]:
        click.echo(f"\nrow of line {row['line']}, {row['tokens']} tokens, trained ones {_how()}:")
        click.echo("".join(_segment(part) for part in row["segments"]))


def _parts(memory: Memory) -> str:
    parts = {
        "weights": memory.weights,
        "trained": memory.trained + memory.optimizer + memory.gradients,
        "activations": memory.activations,
        "runtime": memory.runtime,
    }
    known = ", ".join(f"{name} {words.size(part)}" for name, part in parts.items())
    return known if memory.whole else f"{known}; config.json doesn't say the model's sizes"


def _how() -> str:
    return "green" if sys.stdout.isatty() else "between [[ ]]"


def _segment(part: dict[str, Any]) -> str:
    text = str(part["text"])
    if not part["trained"]:
        return text
    return click.style(text, fg="green", bold=True) if sys.stdout.isatty() else f"[[{text}]]"
