"""`llamaforge demo`: one command that shows everything once, on this machine, in a few minutes.

Two workers fine-tune the shipped small Llama with LoRA on 1,000 example rows; the same held-out
questions are answered before and after. `make demo` calls it. Each run writes a new folder
`runs/demo-N`.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamaforge.cli.job_folder import RUNS
from llamaforge.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from llamaforge.cli.following import Outcome
    from llamaforge.wire.api import Status
    from llamaforge.wire.client import FleetClient

DATASET = "alpaca_1k.jsonl"
HELDOUT = "alpaca_1k_heldout.jsonl"

TRAINING: dict[str, Any] = {
    "model": "tiny",
    "lora_r": 16,
    "lora_alpha": 32,
    "learning_rate": 2e-3,
    "batch_size": 16,
    "epochs": 3,
    "slices": 4,
    "eval_steps": 63,
}
"""What the demo trains with, beside its data."""

ASKED = 60
"""Held-out rows that are answered for the exact matches; all of them count for the loss."""
ANSWER_TOKENS = 48
SAMPLES = 2
READY_SECONDS = 10.0
"""How long the workers may take until they wait again."""


@click.command("demo")
@click.option(
    "--workers",
    type=click.IntRange(1, 16),
    metavar="N",
    default=2,
    show_default=True,
    help="Workers to start where no fleet runs.",
)
@click.option("--keep", is_flag=True, help="Leave the workers waiting for jobs until Ctrl-C.")
def command(workers: int, keep: bool) -> int:
    """Fine-tune the shipped model on two workers and show the gain."""
    from rich.console import Console

    from llamaforge.cli.failures import INTERRUPTED
    from llamaforge.cli.following import detached_lines, raise_if_failed
    from llamaforge.cli.launch import any_fleet, prepare
    from llamaforge.spec.parse import job_spec
    from llamaforge.spec.states import JobState

    data, heldout = example(DATASET), example(HELDOUT)
    folder = next_folder(RUNS)
    files = {"dataset": str(data), "heldout": str(heldout), "output_dir": str(folder)}
    spec = job_spec({**TRAINING, **files, "name": folder.name}, source="demo")
    console = Console(highlight=False)
    say(console, f"fine-tuning `tiny` with LoRA on {data.name}; results go to {folder}/")
    prepared = prepare(spec)
    with any_fleet(lambda text: say(console, text), workers=workers, registered=keep) as client:
        outcome = _train(prepared, client)
        if outcome is None:
            say(console, "\n".join(detached_lines(prepared.job.id)))
            return 0
        raise_if_failed(outcome)
        if outcome.ended.state is not JobState.DONE:
            return INTERRUPTED
        answers = compare(folder, heldout, console)
        report(outcome, answers, console)
        say(console, waiting(client))
        if keep:
            say(console, "the workers stay until Ctrl-C: `llamaforge status`, `llamaforge train`")
            signal.pause()
    return 0


def example(name: str) -> Path:
    """A dataset of `examples/datasets`, of this source tree or the current folder.

    Raises:
        UserError: it is in neither.
    """
    import llamaforge

    roots = (Path.cwd(), Path(llamaforge.__file__).resolve().parents[2])
    for root in roots:
        path = root / "examples" / "datasets" / name
        if path.is_file():
            return Path(path.relative_to(Path.cwd())) if root == roots[0] else path
    raise UserError(
        f"examples/datasets/{name} is neither here nor beside this installation",
        hint="run the demo from a clone of the repository: make demo",
    )


def next_folder(runs: Path) -> Path:
    """The first `demo-N` under `runs` that does not exist."""
    number = 1
    while (runs / f"demo-{number}").exists():
        number += 1
    return runs / f"demo-{number}"


def say(console: Console, text: str) -> None:
    """Prints a line as it stands."""
    console.print(text, markup=False, soft_wrap=True)


def _train(prepared: Any, client: FleetClient) -> Outcome | None:
    from llamaforge.cli.launch import run_job
    from llamaforge.cli.progress import view_for

    with view_for(as_json=False) as view:
        for note in prepared.notes:
            view.say(note)
        return run_job(prepared, client, view)


def compare(folder: Path, heldout: Path, console: Console) -> list[dict[str, Any]]:
    """Answers held-out rows before and after; tells how far it is.

    Returns:
        An `answer` per row, then the `score`, as `llamaforge.train.ask` says them.
    """
    from llamaforge.cli.engine import Engine

    arguments = (f"--job={folder}", f"--rows={heldout}", f"--limit={ASKED}")
    heard: list[dict[str, Any]] = []
    text = f"answering {ASKED} held-out rows before and after"
    if not console.is_terminal:
        say(console, text)
    with (
        console.status(text) as status,
        Engine("ask", *arguments, f"--max-tokens={ANSWER_TOKENS}") as engine,
    ):
        for said in engine.all():
            if said["type"] in ("answer", "score"):
                heard.append(said)
                status.update(f"{text}: {len(heard)}")
    return heard


def report(outcome: Outcome, answers: list[dict[str, Any]], console: Console) -> None:
    """Prints what the job and the answers came to."""
    from llamaforge.cli.answers import show
    from llamaforge.cli.summary import lines, summary

    *rows, score = answers
    head, *body, following = lines(summary(outcome))
    matches = f"{score['exact_before']} -> {score['exact_after']} of {score['rows']} held-out rows"
    console.print()
    for line in (head, f"  {'exact matches':<14} {matches}", *body):
        say(console, line)
    console.print()
    for said in telling(rows):
        show(console, said)
    say(console, following)


def telling(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few answers to show: ones that training put right, else the first ones."""
    gained = [said for said in rows if said["exact_after"] and not said["exact_before"]]
    chosen = gained or rows
    return chosen[:: max(1, len(chosen) // SAMPLES)][:SAMPLES]


def waiting(client: FleetClient) -> str:
    """Asks the coordinator what its workers do now, for a while if they are still busy."""
    import asyncio

    from llamaforge.cli.launch import ask_status
    from llamaforge.spec.states import NodeState

    async def settled() -> Status:
        loop = asyncio.get_running_loop()
        until = loop.time() + READY_SECONDS
        while True:
            status = await ask_status(client)
            if all(node.state is NodeState.READY for node in status.nodes):
                return status
            if loop.time() > until:
                return status
            await asyncio.sleep(0.2)

    nodes = asyncio.run(settled()).nodes
    return "workers now: " + ", ".join(f"{node.name} {node.state.value}" for node in nodes)
