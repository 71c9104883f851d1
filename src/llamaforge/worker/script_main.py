"""Runs somebody's script as `python -u script.py` would, but so that it can be looked into.

    python -u script_main.py STACKS FAILURE -- script.py [arguments]
    python -u script_main.py STACKS FAILURE -- -m module [arguments]

Two things are new to the script: SIGUSR2 writes the stacks of all its threads into the file STACKS,
and an error that it does not catch is left in the file FAILURE (JSON: `kind`, `message`) besides
being printed. Standard library only: nothing of ours is imported into somebody's process.
"""

import faulthandler
import json
import runpy
import signal
import sys
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path

MESSAGE_CHARACTERS = 4096


def main() -> None:
    """Runs the script; ends with its exit code."""
    stacks, failure, _, *command = sys.argv[1:]
    place = Path(stacks).open("w")  # noqa: SIM115  # the signal's handler needs it to the end
    faulthandler.register(signal.SIGUSR2, file=place, all_threads=True)
    try:
        _run(command)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  # all but these two are printed and end it
        _leave(failure, error)
        trace = error.__traceback__
        while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.exit(1)


def _run(command: list[str]) -> None:
    program = types.ModuleType("__main__")
    sys.modules["__main__"] = program
    if command[0] == "-m":
        sys.argv = command[1:]
        sys.path[0] = str(Path.cwd())
        runpy._run_module_as_main(command[1])  # type: ignore[attr-defined]  # what python -m does
        return
    sys.argv = command
    path = Path(command[0]).absolute()
    sys.path[0] = str(path.resolve().parent)
    # Processes that it spawns find it by these (multiprocessing.spawn).
    vars(program).update(
        __file__=str(path), __builtins__=__builtins__, __spec__=None, __cached__=None
    )
    program.__loader__ = SourceFileLoader("__main__", str(path))
    exec(compile(path.read_bytes(), path, "exec"), program.__dict__)


def _is_ours(filename: str) -> bool:
    return filename == __file__ or filename in ("<frozen runpy>", runpy.__file__)


def _leave(path: str, error: BaseException) -> None:
    """Leaves the error for the worker, whole or not at all."""
    said = {"kind": type(error).__name__, "message": str(error)[:MESSAGE_CHARACTERS]}
    aside = Path(f"{path}.new")
    try:
        aside.write_text(json.dumps(said))
        aside.replace(path)
    except OSError as why:
        print(f"the error can't be kept in {path}: {why}", file=sys.stderr)


if __name__ == "__main__":
    main()
