"""A person at a terminal of a node: waits for what stands on it, and types.

    python3 terminal.py SECONDS COMMAND ...  <<< '[["password:", "secret\\n"], ["", "exit\\n"]]'

Standard input holds what to wait for and what to type then, so that a secret is in no argument.
Prints all that the terminal has shown, and ends as the command does; with 124 when it waited for
too long.
"""

from __future__ import annotations

import json
import os
import pty
import select
import sys
import time


def main() -> int:
    """The exit code of the command."""
    deadline = time.monotonic() + float(sys.argv[1])
    todo: list[list[str]] = json.load(sys.stdin)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(sys.argv[2], sys.argv[2:])
    shown, looked = "", 0
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                read = os.read(terminal, 1 << 16)
            except OSError:  # the last process has closed it
                read = b""
            if not read:
                return leave(pid, shown)
            shown += read.decode(errors="replace")
        while todo and todo[0][0] in shown[looked:]:
            expected, typed = todo.pop(0)
            looked = shown.index(expected, looked) + len(expected)
            os.write(terminal, typed.encode())
    os.kill(pid, 9)
    print(shown)
    print(f"waited too long for {todo[0][0]!r}" if todo else "it did not end")
    return 124


def leave(pid: int, shown: str) -> int:
    """What the command has ended with."""
    print(shown, flush=True)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
