"""Make the example dataset: 1,000 training rows and 200 held-out rows, the same bytes every time.

A fine-tuning example needs data that anyone may copy, that is small enough to read, and whose
answers can be checked by string equality. Every row comes from one of 40 task families with one
right answer (see `families/`), drawn from a fixed seed. Run from the root of the repository:

    python -m examples.datasets.make_alpaca_1k            # write both files
    python -m examples.datasets.make_alpaca_1k --check    # compare the files, exit 1 if stale
"""

import argparse
import json
import sys
from pathlib import Path
from random import Random

from .families import FAMILIES, Row

SEED = 20
TRAIN_ROWS = 1_000
HELD_OUT_ROWS = 200
FOLDER = Path(__file__).resolve().parent
TRAIN_FILE = "alpaca_1k.jsonl"
HELD_OUT_FILE = "alpaca_1k_heldout.jsonl"


def draw_rows(rng: Random, count: int, seen: set[tuple[str, str]]) -> list[tuple[str, Row]]:
    """Draw `count` shuffled (family, row) pairs, equally many per family.

    No (instruction, input) of `seen` is used again; those drawn are added to it.
    """
    rows: list[tuple[str, Row]] = []
    for name, family in FAMILIES.items():
        wanted = len(rows) + count // len(FAMILIES)
        while len(rows) < wanted:
            row = family(rng)
            if row[:2] not in seen:
                seen.add(row[:2])
                rows.append((name, row))
    rng.shuffle(rows)
    return rows


def make_files() -> dict[str, bytes]:
    """Return the contents of both files, by name."""
    rng, seen = Random(SEED), set[tuple[str, str]]()
    train = [row._asdict() for _, row in draw_rows(rng, TRAIN_ROWS, seen)]
    held_out = [
        {**row._asdict(), "family": name} for name, row in draw_rows(rng, HELD_OUT_ROWS, seen)
    ]
    return {TRAIN_FILE: _jsonl(train), HELD_OUT_FILE: _jsonl(held_out)}


def _jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")


def main() -> int:
    """Write the files, or with --check compare them with the committed ones."""
    parser = argparse.ArgumentParser(description="Make the example dataset alpaca_1k.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files lie")
    options = parser.parse_args()
    stale = []
    for name, content in make_files().items():
        path: Path = options.folder / name
        if not options.check:
            path.write_bytes(content)
        elif not path.is_file() or path.read_bytes() != content:
            stale.append(name)
    if stale:
        print(f"differs from what this script makes: {', '.join(stale)}", file=sys.stderr)
        print("run: python -m examples.datasets.make_alpaca_1k", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
