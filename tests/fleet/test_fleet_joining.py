"""Joining with real processes: from the token on a screen to a node that works, and out again."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path
from signal import Signals

import pytest

from fleet_rig import Rig, pids
from llamaforge.identity.token import JoinToken
from llamaforge.spec.states import JobState
from llamaforge.wire import api, fleet_file, membership
from llamaforge.wire.endpoint import Endpoint


@pytest.fixture
def rig(empty_rig: Rig) -> Rig:
    return empty_rig


def llamaforge(rig: Rig, *words: str, input: str = "", home: str = "home") -> str:
    """Runs the command line as somebody with a home of their own; returns what it printed."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("LLAMAFORGE_")
    }
    for name in ("STATE", "CONFIG", "CACHE"):
        environ[f"XDG_{name}_HOME"] = str(rig.root / home / name.lower())
    done = subprocess.run(
        [sys.executable, "-m", "llamaforge", *words],
        input=input,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def make_token(rig: Rig, **wish: object) -> JoinToken:
    rig.client()
    coordinator = Endpoint.of(fleet_file.read(rig.fleet_file))
    made = asyncio.run(membership.make_token(coordinator, api.TokenWish(**wish)))  # type: ignore[arg-type]
    return JoinToken.parse(made.token)


def seen_by_others(rig: Rig) -> str:
    """Arguments, environments and logs of all that runs here."""
    seen = [path.read_text(errors="replace") for path in rig.root.glob("*.log")]
    for pid in pids():
        for name in ("cmdline", "environ"):
            try:
                seen.append(Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return "\n".join(seen)


def test_from_the_token_to_a_job_and_out_again(rig: Rig) -> None:
    rig.coordinator()
    token = make_token(rig)
    where = f"127.0.0.1:{fleet_file.read(rig.fleet_file).port}"
    home = rig.root / "n1" / "identity"
    secret = rig.root / "token"
    secret.write_text(token.text)
    secret.chmod(0o600)
    rig.worker("n1", fleet=None, coordinator=where, token_file=secret)
    asyncio.run(rig.waiting("n1"))
    secret.unlink()
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}

    ended, _ = asyncio.run(rig.run("job", "steps=3"))
    assert ended.state is JobState.DONE

    everything = seen_by_others(rig)
    assert "n1" in everything
    assert token.secret not in everything
    assert "PRIVATE KEY" not in everything

    rig.end("n1", Signals.SIGKILL)  # the same identity after a crash, without any token
    rig.worker("n1", fleet=None, coordinator=where)
    asyncio.run(rig.waiting("n1"))

    llamaforge(rig, "nodes", "remove", "n1", "--fleet", str(rig.fleet_file), "--reason", "sold")
    rig.wait(lambda: "n1 was removed from this fleet" in rig.log("n1"), "the worker says why")
    asyncio.run(rig.waiting())


def test_the_fleet_is_the_same_after_its_coordinator_was_killed(rig: Rig) -> None:
    rig.coordinator()
    token, first = make_token(rig), fleet_file.read(rig.fleet_file)
    rig.worker("n1")
    asyncio.run(rig.waiting("n1"))
    rig.end("coordinator", Signals.SIGKILL)
    rig.coordinator(port=first.port)
    asyncio.run(rig.waiting("n1"))
    again = fleet_file.read(rig.fleet_file)
    assert (again.authority, again.socket, again.port) == (
        first.authority,
        first.socket,
        first.port,
    )
    said = llamaforge(rig, "worker", "join", f"127.0.0.1:{first.port}", "--name", "n2",
                      input=token.text)  # fmt: skip
    assert "n2 has joined" in said


def test_a_person_logs_in_from_elsewhere_and_is_refused_in_the_end(rig: Rig) -> None:
    rig.coordinator()
    token = make_token(rig, role="person", name="anna")
    where = f"127.0.0.1:{fleet_file.read(rig.fleet_file).port}"
    assert "you are anna" in llamaforge(rig, "login", where, input=token.text, home="anna")
    assert "no worker" in llamaforge(rig, "status", home="anna")
    for path in (rig.root / "anna").rglob("*"):
        assert not path.is_file() or stat.S_IMODE(path.stat().st_mode) == 0o600, path
    llamaforge(rig, "people", "--withdraw", "anna", "--fleet", str(rig.fleet_file))
    with pytest.raises(AssertionError, match="may use this fleet no more"):
        llamaforge(rig, "status", home="anna")
