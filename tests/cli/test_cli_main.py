"""The program as a person starts it: help, errors, exit codes, and how fast it is."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from importlib import import_module

import click
import pytest

from llamaforge import __version__
from llamaforge.cli.failures import exit_code
from llamaforge.cli.main import run
from llamaforge.cli.verbs import VERBS
from llamaforge.errors import FleetError, SpecError

Output = pytest.CaptureFixture[str]


def test_help_lists_every_verb(capsys: Output) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert name in shown
        assert verb.line in shown


@pytest.mark.parametrize("name", VERBS)
def test_the_table_agrees_with_the_commands(name: str) -> None:
    command = import_module(f"llamaforge.cli.{VERBS[name].module}").command
    assert isinstance(command, click.Command)
    assert command.get_short_help_str(200) == VERBS[name].line


def test_version(capsys: Output) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"llamaforge {__version__}"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["trian"], "no such verb 'trian'; did you mean train?"),
        (["train", "--epcohs", "1"], "no such option --epcohs; did you mean --epochs?"),
        (["train", "--lr", "1"], "no such option --lr; did you mean --learning-rate?"),
        (["train", "--xyzzy"], "no such option --xyzzy\n"),
        (["train", "--epochs"], "'--epochs' requires an argument"),
        (["train", "a.yaml", "b.yaml"], "unexpected extra argument"),
        (["train", "--epochs", "x"], "--epochs: 'x' is not a whole number of at least 1"),
        (["train", "none.yaml"], "job file none.yaml: No such file"),
    ],
)
def test_wrong_command_lines_say_one_clear_thing(
    capsys: Output, args: list[str], told: str
) -> None:
    assert run(args) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert told in said.err
    assert "Traceback" not in said.err
    assert not said.out


@pytest.mark.parametrize("args", [[], ["worker"], ["coordinator"]])
def test_a_group_alone_shows_its_help_whole(capsys: Output, args: list[str]) -> None:
    assert run(args) == 2
    said = capsys.readouterr()
    assert run([*args, "--help"]) == 0
    assert said.err == capsys.readouterr().out
    assert not said.out


def test_all_mistakes_of_a_line_at_once(capsys: Output) -> None:
    assert run(["train", "--epochs", "x", "--lora_r", "0"]) == 2
    said = capsys.readouterr().err
    assert "--epochs: 'x'" in said
    assert "--lora-r: '0'" in said
    assert "model: is missing" in said


def test_json_errors_are_json(capsys: Output) -> None:
    assert run(["train", "--json", "--epochs", "x"]) == 2
    said = capsys.readouterr()
    error = json.loads(said.out)
    assert (error["type"], error["error"], error["exit_code"]) == ("error", "SpecError", 2)
    assert "--epochs" in error["message"]
    assert not said.err


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError("x"), 2),
        (FleetError("x"), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("X is wrong."), 2),
        (click.ClickException("x"), 1),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_code(lambda: _raise(error)) == code


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 // 0)


def test_the_hint_stands_below_the_message(capsys: Output) -> None:
    exit_code(lambda: _raise(SpecError("bad thing", hint="do this\nor that")))
    assert capsys.readouterr().err == "error: bad thing\n  do this\n  or that\n"


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from llamaforge.cli.main import run; run(['--help']); "
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('torch', 'aiohttp', 'rich', 'msgspec', 'numpy', 'yaml', 'asyncio')], file=sys.stderr)"
    )
    assert _python(code).stderr.strip() == "[]"


def test_help_is_instant() -> None:
    """At most 120 ms of processor time; the best of a few runs, as the machine may be busy."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "llamaforge", "--help"], check=True, stdout=subprocess.DEVNULL
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    once()
    assert min(once() for _ in range(10)) <= 0.120


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "llamaforge", "train", "--help-all"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert done.stderr == b""


def test_ctrl_c_ends_with_130() -> None:
    code = (
        "import sys, time; from llamaforge.cli.failures import exit_code; "
        "sys.exit(exit_code(lambda: (print('up', flush=True), time.sleep(60))))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
