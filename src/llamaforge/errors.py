"""The one exception tree. It is caught once, in `cli.main`, and printed without a traceback.

    LlamaForgeError            exit code 1   something went wrong while doing what was asked
    ├── UserError              exit code 2   what was asked can't be done as written
    │   ├── Occupied                         what is needed is taken or full now
    │   │   └── NoSpace                      a disk, or a cache with a limit, has no room
    │   ├── SpecError                        a key or value of the job
    │   ├── DataError                        a dataset: names the file and the line
    │   └── ModelError                       a model: missing, incomplete, gated
    ├── FleetError             exit code 1   a coordinator or worker could not be reached or refused
    ├── IntegrityError         exit code 1   bytes that are not what their digest says
    └── JobFailed              exit code 1   a job ended without a result

An error names the thing, the value seen and the next command: `message` holds the first two,
`hint` the last. Anything outside this tree that reaches the user is a bug and keeps its traceback.
"""

from __future__ import annotations


class LlamaForgeError(Exception):
    """Base of all errors that are meant for a person.

    Args:
        message: what happened, naming the thing and the value seen; one line where possible.
        hint: what to do next, preferably a command; empty when there is nothing to add.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UserError(LlamaForgeError):
    """What was asked can't be done as written; nothing has been changed."""

    exit_code = 2
    may_pass = False
    """Whether the same may work later without a change by a person (a port in use, a full disk):
    a service then tries again."""


class Occupied(UserError):
    """A port, a folder or a disk that is needed is taken or full now; it may be free later."""

    may_pass = True


class NoSpace(Occupied):
    """A disk, or a cache with a limit, has no room for what must be there; it may have later."""


class SpecError(UserError):
    """A key or a value of a job, or of a settings file, is wrong."""


class DataError(UserError):
    """A dataset can't be used; the message names file and line."""


class ModelError(UserError):
    """A model is missing, incomplete, or may not be downloaded."""


class FleetError(LlamaForgeError):
    """A coordinator or worker could not be reached, or refused."""


class IntegrityError(LlamaForgeError):
    """Bytes differ from what their digest promises."""


class JobFailed(LlamaForgeError):
    """A job ended without a result; the message names node, rank, cause and last lines."""
