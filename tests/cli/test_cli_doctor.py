"""`llamaforge doctor` as a person runs it; what it finds on this machine is not asserted."""

from __future__ import annotations

import json

import pytest

from llamaforge.cli.doctor import show
from llamaforge.cli.main import run
from llamaforge.doctor.finding import Finding, Severity, error, note
from llamaforge.doctor.registry import CHECKS

Output = pytest.CaptureFixture[str]


def test_the_list_has_every_check(capsys: Output) -> None:
    assert run(["doctor", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["checks"]
    assert [row["code"] for row in rows] == [check.code for check in CHECKS]
    assert run(["doctor", "--list", "--only", "LF110"]) == 0
    assert "LF110" in capsys.readouterr().out


def test_json_is_one_object_and_the_exit_code_is_in_it(capsys: Output) -> None:
    code = run(["doctor", "--json", "--only", "LF204", "--only", "lf403"])
    said = json.loads(capsys.readouterr().out)
    assert said["exit_code"] == code
    assert {finding["code"] for finding in said["findings"]} == {"LF204", "LF403"}
    assert code in (0, 1, 3)


def test_an_unknown_code_is_a_usage_error(capsys: Output) -> None:
    assert run(["doctor", "--only", "LF9"]) == 2
    assert "no such check 'LF9'" in capsys.readouterr().err


@pytest.mark.parametrize("peer", ["nonsense!!", "", "a b", "10.0.0.3:99999", "300.1.1.1"])
def test_a_peer_that_can_be_no_host_is_a_usage_error(capsys: Output, peer: str) -> None:
    assert run(["doctor", "--only", "LF308", "--peer", peer]) == 2
    assert f"--peer is {peer!r}" in capsys.readouterr().err


def test_a_peer_that_refuses_is_an_error(capsys: Output, unused_tcp_port: int) -> None:
    """For real: a port of this machine where nothing listens."""
    peer = f"127.0.0.1:{unused_tcp_port}"
    assert run(["doctor", "--json", "--only", "LF308", "--peer", peer]) == 3
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["about"], finding["severity"]) == (peer, "error")


def test_what_a_person_sees(capsys: Output) -> None:
    found = [
        error("x", "[b] is broken: see [/b]", "sudo mend --it '[x]'"),
        note("", "could not look: only root"),
        Finding(severity=Severity.OK, seen="nothing found", code="LF2"),
    ]
    show(found, as_root=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("[b] is broken: see [/b]")
    assert lines[1] == "    sudo mend --it '[x]'"
    assert "1 error, 1 note, 1 check found nothing" in lines
    assert lines[-1] == "some of it only root can see: sudo llamaforge doctor"


def test_what_another_machine_said_does_nothing_to_the_terminal(capsys: Output) -> None:
    show([error("x", "torch is \x1b]0;owned\x07\x1b[2J here", "mend\r\x9b1A it")], as_root=True)
    said = capsys.readouterr().out
    assert "owned" in said
    assert not [c for c in said if not c.isprintable() and c != "\n"]


def test_codes_are_completed() -> None:
    from llamaforge.cli.doctor import _codes, command

    context = command.make_context("doctor", [])
    offered = [item.value for item in _codes(context, command.params[1], "lf30")]
    assert offered == [check.code for check in CHECKS if check.code.startswith("LF30")]
