"""How an error reaches a person: one message, the next command, and an exit code.

    2     what was asked can't be done as written (also: wrong options)
    1     something went wrong while doing it
    130   stopped with Ctrl-C
    78    instead of 2 in the main process of a systemd unit: starting it again can't help

With `--json` the same stands on standard output as one JSON object, so that a program that reads
the stream sees the error where it reads everything else.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Callable, Sequence

import click

from llamaforge.errors import LlamaForgeError, UserError
from llamaforge.systemd import unit

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells report it."""


def exit_code(action: Callable[[], object], *, as_json: bool = False) -> int:
    """Runs `action` and turns what it raises into a message and an exit code.

    Anything but a `LlamaForgeError`, a wrong option, an interrupt or a closed pipe is a bug and
    keeps its traceback.
    """
    try:
        result = action()
    except LlamaForgeError as error:
        return _show(error, as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        # A group without its verb: the help is the answer, and not a sentence of an error.
        print(error.format_message(), file=sys.stderr)
        return UserError.exit_code
    except click.UsageError as error:
        return _show(usage_error(error), as_json)
    except click.ClickException as error:
        return _show(LlamaForgeError(error.format_message()), as_json)
    except (click.Abort, KeyboardInterrupt, EOFError):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`head`, a pager) has left: not an error. Python would complain once more
        # when it flushes at exit, so what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def usage_error(error: click.UsageError) -> UserError:
    """A wrong option or argument, in the words of this program."""
    path = error.ctx.command_path if error.ctx else "llamaforge"
    hint = f"`{path} --help` lists what it takes"
    if isinstance(error, click.NoSuchOption):
        meant = _options_like(error.option_name, error.ctx)
        also = f"; did you mean {meant}?" if meant else ""
        return UserError(f"no such option {error.option_name}{also}", hint=hint)
    message = " ".join(error.format_message().split()).rstrip(".")
    return UserError(message[:1].lower() + message[1:], hint=hint)


def _options_like(name: str, ctx: click.Context | None) -> str | None:
    """The option of the command that somebody who wrote `name` most likely meant."""
    if ctx is None:
        return None
    params = [param for param in ctx.command.params if isinstance(param, click.Option)]
    known = [flag for param in params for flag in (*param.opts, *param.secondary_opts)]
    word = name.replace("_", "-").lstrip("-")
    if flag := _flag_elsewhere(word, known):
        return flag
    found = difflib.get_close_matches(word, [flag.lstrip("-") for flag in known], n=1)
    return f"--{found[0]}" if found else None


def _flag_elsewhere(word: str, known: Sequence[str]) -> str | None:
    """The flag for a word that other tools use (`--lr`), when this command has it."""
    from llamaforge.spec.parse import suggestion  # only a mistake needs the table of options

    meant = suggestion(word)
    flag = "--" + meant.replace("_", "-") if meant else ""
    return flag if flag in known else None


def _show(error: LlamaForgeError, as_json: bool) -> int:
    if as_json:
        said = {
            "type": "error",
            "error": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
        print(json.dumps(said), flush=True)
    else:
        red, plain = ("\033[1;31m", "\033[0m") if _coloured() else ("", "")
        print(f"{red}error:{plain} {error.message}", file=sys.stderr)
        if error.hint:
            print("\n".join(f"  {line}" for line in error.hint.splitlines()), file=sys.stderr)
    if isinstance(error, UserError) and not error.may_pass and unit.runs_us(os.environ):
        return unit.CANNOT_HELP
    return error.exit_code


def _coloured() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ
