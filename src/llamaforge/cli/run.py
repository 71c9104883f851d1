"""`llamaforge run -- script.py args`: somebody's own torch.distributed script on the fleet.

llamaforge run -- train.py --epochs 3
llamaforge run --nodes 2 --nproc-per-node 4 -- -m package.train
llamaforge run --dry-run -- train.py
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamaforge.cli.asking import fleet_option, json_option
from llamaforge.errors import UserError

if TYPE_CHECKING:
    from llamaforge.cli.script_run import Request


@click.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
    no_args_is_help=True,
)
@click.option("--nodes", type=click.IntRange(1), metavar="N", help="Nodes; by default all free.")
@click.option("--min-nodes", type=click.IntRange(1), metavar="N", help="Start with so many.")
@click.option(
    "--nproc-per-node",
    default="1",
    metavar="N",
    help="Processes on each node; `auto`: as its worker was told, else by its cores.",
)
@click.option("--labels", default="", metavar="A,B", help="Labels that a node must have.")
@click.option("--min-memory", metavar="SIZE", help="Memory that a node must have, such as 64G.")
@click.option("--min-gpus", type=click.IntRange(0), default=0, metavar="N", help="GPUs likewise.")
@click.option("--priority", type=int, default=0, metavar="N", help="Higher ones go first.")
@click.option(
    "--max-restarts",
    type=click.IntRange(0, 1000),
    default=3,
    metavar="N",
    show_default=True,
    help="How often all ranks are started again after one has failed.",
)
@click.option("--name", metavar="NAME", help="The job's id; by default after the script.")
@click.option(
    "--env", "environment", multiple=True, metavar="K=V", help="A variable for the ranks; repeat."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="The script's folder, which travels; by default the current one.",
)
@click.option("--max-size", metavar="SIZE", help="Most that the folder may hold; 1G by default.")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where results go; by default runs/NAME.",
)
@click.option("--detach", is_flag=True, help="Print the job's id and return when it is queued.")
@click.option("--dry-run", is_flag=True, help="List what would travel, and change nothing.")
@fleet_option
@json_option
@click.argument("command_line", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT [ARGS]...")
def command(
    nodes: int | None,
    min_nodes: int | None,
    nproc_per_node: str,
    labels: str,
    min_memory: str | None,
    min_gpus: int,
    priority: int,
    max_restarts: int,
    name: str | None,
    environment: tuple[str, ...],
    folder: Path,
    max_size: str | None,
    output_dir: Path | None,
    detach: bool,
    dry_run: bool,
    fleet: Path | None,
    as_json: bool,
    command_line: tuple[str, ...],
) -> int:
    """Run a torch.distributed script on the fleet, as torchrun would.

    The folder travels to each node, without what .llamaforgeignore or .gitignore name. The script
    finds the variables that torchrun gives. What rank 0's node has in $LLAMAFORGE_OUTPUT at the
    end becomes the job's files. `-m MODULE` works as for Python.
    """
    from llamaforge.cli import script_run
    from llamaforge.cli.script_wishes import variables, wishes

    if not command_line:
        raise UserError(
            "nothing to run stands after --", hint="llamaforge run [OPTIONS] -- script.py [ARGS]"
        )
    request = script_run.Request(
        command=command_line,
        folder=folder,
        wishes=wishes(
            nodes=nodes,
            min_nodes=min_nodes,
            nproc_per_node=nproc_per_node,
            labels=labels,
            min_memory=min_memory,
            min_gpus=min_gpus,
            priority=priority,
        ),
        environment=variables(environment),
        max_restarts=max_restarts,
        name=name,
        max_size=max_size,
        output_dir=output_dir,
    )
    return _carry_out(request, fleet, dry_run=dry_run, detach=detach, as_json=as_json)


def _carry_out(
    request: Request, fleet: Path | None, *, dry_run: bool, detach: bool, as_json: bool
) -> int:
    from llamaforge.cli import script_run

    prepared = script_run.prepare(request)
    if dry_run:
        script_run.show(prepared, as_json=as_json)
        return 0
    if detach:
        return script_run.submit(prepared, fleet, as_json=as_json)
    return script_run.run(prepared, fleet, as_json=as_json)
