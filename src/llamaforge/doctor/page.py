"""Writes docs/DOCTOR.md from the checks, so that it can't be wrong.

python -m llamaforge.doctor.page > docs/DOCTOR.md
"""

from __future__ import annotations

import sys

from llamaforge.doctor.registry import CHECKS

GROUPS = {
    "LF1": "Files, programs and settings",
    "LF2": "The service",
    "LF3": "The network",
    "LF4": "The machine",
}

_HEAD = """\
# What `llamaforge doctor` looks for

Made by `python -m llamaforge.doctor.page > docs/DOCTOR.md`; a test compares it with the code.

```
sudo llamaforge doctor                          # everything, on this node
sudo llamaforge doctor --peer 192.168.1.11      # and the way to another node
llamaforge doctor --only LF301 --only LF302     # two checks
llamaforge doctor --json                        # one object for programs
llamaforge doctor --list                        # all checks
```

It looks at what the service sees: the unit with its drop-ins, its environment, and the settings
file. Where no service is installed it looks at the environment of the shell. It changes nothing:
each finding comes with the commands that mend it, to copy and run. Without root it says what it
could not look at.

All checks run at once, each with a time limit. Whatever may hang, such as a folder on a dead file
server, is touched by a child process that can be killed.

| worst finding | exit code |
|---|---|
| ok, or a note: worth knowing | 0 |
| a warning: works, but slower, or not after a reboot | 1 |
| (a wrong option) | 2 |
| an error: the worker can't do its job | 3 |

With `--json`, standard output is one object: `worst`, `exit_code`, and `findings`, worst first,
each with `code`, `title`, `severity` (`ok`, `note`, `warning`, `error`), `about` (the path, host,
port or unit), `seen`, and `fix`, a list of commands.
"""

_FOOT = """\
## What was not tried on a real machine

SELinux in enforcing mode (LF402), firewalld (in LF301) and WSL2 (LF405) were tried with recorded
or made-up output only; so were the traps of graphics cards (LF404), lingering (LF205), kernels
without the memory controller (LF403) and laptops (LF406). Machines of the test lab share one
clock, so LF309 was tried against a server that tells another time. All others are caused on real
machines by `tests/lab/test_doctor_on_a_node.py` and `tests/lab/test_doctor_between_nodes.py`, and
LF407 by `tests/lab/test_scripts.py`.

Doctor runs on the environment that it looks at: where its own Python is gone it can't start, and
`./install.sh` is the answer. The libraries (LF104) are imported as the service's user, but without
the unit's hardening.
"""


def markdown() -> str:
    """The whole page."""
    parts = [_HEAD]
    for prefix, title in GROUPS.items():
        rows = [
            f"| {check.code} | {check.title} | {check.sees} | {check.fix} |"
            for check in CHECKS
            if check.code.startswith(prefix)
        ]
        lines = [f"## {title}\n", "| code | | what it sees | what the printed commands do |"]
        parts.append("\n".join([*lines, "|---|---|---|---|", *rows, ""]))
    return "\n".join([*parts, _FOOT])


if __name__ == "__main__":
    sys.stdout.write(markdown())
