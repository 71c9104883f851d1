"""`llamaforge try JOB`: the same prompts answered by the model before and after training.

llamaforge try tiny-lora "Give the capital of Austria."
llamaforge try runs/tiny-lora                     # reads prompts until an empty line
llamaforge try tiny-lora --rows heldout.jsonl     # exact matches on a file
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from llamaforge.cli.job_folder import JobName, find_job


@click.command("try")
@click.argument("job", type=JobName())
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("--rows", type=click.Path(), help="Answer the rows of a file; count exact matches.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N rows.")
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    metavar="N",
    default=128,
    show_default=True,
    help="Longest answer.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    metavar="X",
    default=0.0,
    show_default=True,
    help="0 always takes the likeliest token; more samples.",
)
@click.option("--plain", is_flag=True, help="Go on with the prompt; no chat template around it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def command(
    job: str,
    prompts: tuple[str, ...],
    rows: str | None,
    limit: int | None,
    max_tokens: int,
    temperature: float,
    plain: bool,
    as_json: bool,
) -> None:
    """Compare answers before and after a job.

    JOB is a job's folder or its name under runs/. Without PROMPT, prompts are read line by line.
    """
    if rows and prompts:
        raise click.UsageError("give prompts or --rows, not both")
    if limit and not rows:
        raise click.UsageError("--limit goes with --rows")
    arguments = [f"--job={find_job(job)}", f"--max-tokens={max_tokens}"]
    arguments += [f"--temperature={temperature}"]
    arguments += ["--plain"] if plain else []
    arguments += [f"--rows={rows}"] if rows else []
    arguments += [f"--limit={limit}"] if limit else []
    for said in _answers(arguments, prompts, from_file=rows is not None, quiet=as_json):
        _show(said, as_json)


def _answers(
    arguments: list[str], prompts: tuple[str, ...], *, from_file: bool, quiet: bool
) -> Iterator[dict[str, Any]]:
    """What the engine answers, as it comes."""
    from rich.console import Console

    from llamaforge.cli.engine import Engine

    with Engine("ask", *arguments) as engine:
        if quiet:
            engine.hear()
        else:
            with Console(stderr=True).status("loading the model"):
                engine.hear()
        if from_file:
            yield from engine.all()
            return
        for prompt in prompts or _read_prompts():
            engine.tell({"prompt": prompt})
            if (said := engine.hear()) is not None:
                yield said


def _read_prompts() -> Iterator[str]:
    """Prompts from the keyboard until an empty line, or from a pipe until its end."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    import readline  # noqa: F401 - gives input() line editing and history

    while True:
        try:
            prompt = input("prompt> ").strip()
        except EOFError:
            return
        if not prompt:
            return
        yield prompt


def _show(said: dict[str, Any], as_json: bool) -> None:
    import msgspec
    from rich.console import Console

    from llamaforge.cli import answers

    if as_json:
        click.echo(msgspec.json.encode(said).decode())
    elif said["type"] == "score":
        rows = said["rows"]
        click.echo(f"exact matches: before {said['exact_before']}/{rows}, ", nl=False)
        click.echo(f"after {said['exact_after']}/{rows}")
    else:
        answers.show(Console(), said)
