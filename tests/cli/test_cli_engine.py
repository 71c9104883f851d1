"""The engine's programs as the command line starts them: real processes, no torch."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from llamaforge.cli.engine import Engine
from llamaforge.errors import DataError, LlamaForgeError

PROGRAM = """
import json, sys
mode = sys.argv[1]
print("noise of a library")
print(json.dumps({"type": "ready"}), flush=True)
if mode == "echo":
    for line in sys.stdin:
        print(json.dumps({"type": "answer", **json.loads(line)}), flush=True)
elif mode == "error":
    said = {"type": "error", "error": "DataError", "message": "bad row", "hint": "mend it"}
    print(json.dumps(said), flush=True)
    sys.exit(2)
elif mode == "crash":
    raise ZeroDivisionError("deep inside")
elif mode == "hang":
    import time
    time.sleep(600)
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Engines whose program is a script instead of a module of the engine."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)

    def make(mode: str) -> Engine:
        made = Engine("fake", mode)
        monkeypatch.setattr(made, "_command", lambda: [sys.executable, str(script), mode])
        return made

    return make


def test_questions_and_answers(engine: Any) -> None:
    with engine("echo") as running:
        assert running.hear() == {"type": "ready"}
        for word in ("one", "two"):
            running.tell({"prompt": word})
            assert running.hear() == {"type": "answer", "prompt": word}
    assert running._process.returncode == 0


def test_errors_keep_their_class_and_hint(engine: Any) -> None:
    with pytest.raises(DataError, match="bad row") as caught, engine("error") as running:
        list(running.all())
    assert (caught.value.hint, caught.value.exit_code) == ("mend it", 2)


def test_a_crash_shows_the_last_lines(engine: Any) -> None:
    with pytest.raises(LlamaForgeError, match="ended with exit code 1") as caught:  # noqa: SIM117
        with engine("crash") as running:
            list(running.all())
    assert "ZeroDivisionError: deep inside" in caught.value.message


def test_telling_a_dead_program_is_no_crash(engine: Any) -> None:
    with engine("error") as running:
        running._process.wait()
        running.tell({"prompt": "x"})
        with pytest.raises(DataError):
            list(running.all())


def test_nothing_is_left_when_the_block_fails(engine: Any) -> None:
    running = engine("hang")

    def fail() -> None:
        with running:
            running.hear()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert running._process.returncode == -signal.SIGTERM
