"""A checkout on a node that may be changed, and what an update from it may find."""

from __future__ import annotations

from lab import Node

PREFIX = "/opt/llamaforge"
SOURCE = "/srv/source"
COPY = (
    f"mkdir {SOURCE} && cd /srv/llamaforge && cp -r install.sh constraints.txt pyproject.toml"
    f" README.md distributed_train.py src packaging {SOURCE}/ && mkdir {SOURCE}/examples"
    f" && cp -r examples/models {SOURCE}/examples/"
)


def another_torch(node: Node) -> None:
    """Makes what the next update would build: libraries with torch 9.9.0, links to the first."""
    node.shell(f"echo '# other' >>{SOURCE}/constraints.txt")
    dry = node.run(f"{SOURCE}/install.sh", "--torch", "cpu", "--dry-run", timeout=200)
    planned = (dry.stdout + dry.stderr).splitlines()
    folder = next(line.split()[-1] for line in planned if "would build" in line)
    packages = "lib/python3*/site-packages"
    node.shell(
        f"old=$(echo {PREFIX}/libraries/*) && mkdir {folder} && cd {folder}"
        " && for name in $old/*; do test $name = $old/lib || ln -s $name .; done"
        f" && cd $old && set -- {packages} && mkdir -p {folder}/$1"
        f" && ln -s $old/$1/* {folder}/$1/ && cd {folder}/$1"
        " && mv torch-*.dist-info torch-9.9.0.dist-info"
    )
