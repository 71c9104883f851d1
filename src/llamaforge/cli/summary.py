"""What a job ends with: how it went, under which guarantee, where its files are, what comes next.

done: tiny-lora-3f2a, 126 steps in 1:32
  guarantee       same numbers: all 2 ranks agree on a canary slice
  held-out loss   2.4121 -> 0.8713
  …
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import msgspec

from llamaforge.cli import words
from llamaforge.cli.following import Outcome
from llamaforge.cli.launch import shown_path
from llamaforge.spec.job import JobSpec
from llamaforge.spec.options import options
from llamaforge.spec.states import JobState

FILES = {
    "adapter": "adapter_model.safetensors",
    "model": "model/model.safetensors",
    "merged": "merged/model.safetensors",
    "metrics": "metrics.jsonl",
    "plot": "loss.svg",
    "tensorboard": "tensorboard",
    "proof": "proof.json",
}
"""What may stand in a job's folder, by what a person calls it."""


def summary(outcome: Outcome) -> dict[str, Any]:
    """Everything that there is to say about an ended job, as plain values."""
    ended, tally = outcome.ended, outcome.tally
    folder = outcome.folder
    proof = ended.proof or {}
    seen_before, seen_after = tally.heldout
    stopped = ended.state is JobState.STOPPED
    return {
        "type": "summary",
        "job": outcome.job_id,
        "state": ended.state.value,
        "reason": ended.reason,
        "steps": tally.step,
        "total_steps": tally.total_steps,
        "guarantee": proof.get("guarantee"),
        "guarantee_why": proof.get("guarantee_why"),
        "heldout_loss_before": proof.get("heldout_loss_before", seen_before),
        "heldout_loss_after": seen_after,
        "tokens_per_second": tally.mean_tokens_per_second,
        "shares": tally.shares,
        "output_dir": str(folder),
        "files": files(folder),
        "next": again(outcome) if stopped else try_command(folder),
    }


def files(folder: Path) -> dict[str, str]:
    """The files of a job's folder that are there, by what a person calls them."""
    found = {noun: folder / name for noun, name in FILES.items()}
    return {
        noun: str(path)
        for noun, path in found.items()
        if path.exists() or path.with_name(f"{path.name}.index.json").exists()
    }


def lines(said: dict[str, Any]) -> list[str]:
    """A summary as lines for a person."""
    rows = [
        ("guarantee", _guarantee(said)),
        ("held-out loss", _heldout(said)),
        ("speed", words.rate(said["tokens_per_second"]) if said["tokens_per_second"] else ""),
        ("shares", words.shares(said["shares"])),
        *((noun, shown_path(Path(path))) for noun, path in said["files"].items()),
    ]
    reason = f": {said['reason']}" if said["reason"] and said["state"] != "done" else ""
    head = f"{said['state']}{reason} ({said['job']}, step {said['steps']}/{said['total_steps']})"
    verb = "continue with" if said["state"] == "stopped" else "next"
    return [
        head,
        *(f"  {noun:<14} {text}" for noun, text in rows if text),
        f"{verb}: {said['next']}",
    ]


def try_command(folder: Path) -> str:
    """The command that asks a finished job's model."""
    return f"llamaforge try {shlex.quote(shown_path(folder))}"


def again(outcome: Outcome) -> str:
    """The command that continues a stopped job."""
    if outcome.spec is None or outcome.resumable:
        return f"llamaforge resume {outcome.job_id}"
    return resume_command(outcome.spec)


def resume_command(spec: JobSpec) -> str:
    """The command line that continues a stopped job."""
    return command_line(msgspec.structs.replace(spec, auto_resume=True))


def command_line(spec: JobSpec) -> str:
    """The shortest `llamaforge train` command line that means this spec."""
    parts = ["llamaforge", "train"]
    for option in options().values():
        value = getattr(spec, option.name)
        if value == option.default:
            continue
        if option.kind == "flag":
            parts.append(option.flag if value else f"--no-{option.flag[2:]}")
        elif option.name == "sample_prompts":
            parts += [piece for text in value for piece in (option.flag, text)]
        else:
            parts += [option.flag, _written(value)]
    return shlex.join(parts)


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={text}" for key, text in value.items())
    if isinstance(value, tuple):
        return ",".join(value)
    return "none" if value is None else str(value)


def _guarantee(said: dict[str, Any]) -> str:
    if not said["guarantee"]:
        return ""
    return f"{said['guarantee']}: {said['guarantee_why']}"


def _heldout(said: dict[str, Any]) -> str:
    before, after = said["heldout_loss_before"], said["heldout_loss_after"]
    if before is None or after is None:
        return ""
    return f"{before:.4f} -> {after:.4f}"
