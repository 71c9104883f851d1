"""The mail program: its settings, what a mail says, and how it leaves, to a real SMTP server."""

from __future__ import annotations

import ast
import contextlib
import email
import email.policy
import importlib.util
import json
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from hypothesis import given
from hypothesis import strategies as st

from certificate import make as certificate_for

FOLDER = Path(__file__).resolve().parents[2] / "packaging" / "mail"


def load(name: str) -> ModuleType:
    """One of the programs as a module; they stand outside every package."""
    spec = importlib.util.spec_from_file_location(f"packaged_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


mail = load("mail")


# ── settings ──────────────────────────────────────────────────────────────────────────────────


def test_the_example_can_be_used_as_it_is() -> None:
    settings = mail.read_settings((FOLDER / "mail.conf.example").read_text(encoding="utf-8"))
    assert (settings.to, settings.how) == ("admin@example.org", "sendmail")
    assert (settings.restarts, settings.minutes, settings.quiet_minutes) == (5, 10, 60)


def test_the_example_names_every_setting() -> None:
    text = (FOLDER / "mail.conf.example").read_text(encoding="utf-8")
    named = {line.lstrip("#").split("=")[0].strip() for line in text.splitlines() if "=" in line}
    known = {each.name for each in mail.fields(mail.Settings)} - {"sender"} | {"from"}
    assert known <= named


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nobody to mail to"),
        ("to = a@b\nhow = pigeon", "line 2: how is 'pigeon', not sendmail or smtp"),
        ("to = a@b\nhow = smtp", "no server is named"),
        ("to = a@b\npasword = x", "line 2: no setting pasword; did you mean password?"),
        ("to = a@b\nsender = x", "line 2: no setting sender; did you mean from?"),
        ("to = a@b\nminutes = 0", "line 2: minutes is '0', not a number from 1"),
        ("to = a@b\nport = ٣", "not a number from 1 to 65535"),
        ("to = a@b\njust words", "line 2: no setting just words"),
        ("to = a@b\npassword = x", "there is a password, but no user"),
        (
            "to = a@b\nhow = smtp\nhost = h\nuser = u\npassword = p\nsecurity = none",
            "the password would cross the network for all to read",
        ),
        ("to = a@b\x07", "which no mail header can hold"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(mail.Mistake) as wrong:
        mail.read_settings(text)
    assert said in str(wrong.value)


def test_settings_do_not_show_their_password() -> None:
    text = "to = a@b\nhow = smtp\nhost = h\nuser = u\npassword = geheim"
    assert "geheim" not in repr(mail.read_settings(text))


@given(st.text())
def test_any_text_is_settings_or_a_mistake(text: str) -> None:
    with contextlib.suppress(mail.Mistake):
        assert mail.read_settings(text).to


# ── what it says ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("result", "code", "status", "words"),
    [
        ("exit-code", "exited", "78", "exit code 78 (something that a restart can't mend)"),
        ("exit-code", "exited", "1", "exit code 1"),
        ("signal", "killed", "SEGV", "signal SEGV"),
        ("core-dump", "dumped", "ABRT", "core-dump, signal ABRT"),
        ("oom-kill", "killed", "KILL", "oom-kill, signal KILL"),
        ("watchdog", "dumped", "6", "watchdog, signal 6"),
        ("resources", "", "", "resources"),
        ("", "", "", "not known"),
    ],
)
def test_how_a_service_ended_in_words(result: str, code: str, status: str, words: str) -> None:
    assert mail.reason(result, code, status) == words


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A machine on which llamaforge-worker.service has failed."""
    state = SimpleNamespace(
        show="ActiveState=failed\nSubState=failed\nResult=exit-code\nNRestarts=3\n"
        "ExecMainCode=1\nExecMainStatus=78\nStatusText=the token is missing\n",
        journal="2026-11-23T06:49:26 node1 llamaforge-worker[7]: Grüße, das Token fehlt\n",
        ends=tmp_path,
        asked=[],
    )

    def answer_of(*command: str) -> str:
        state.asked.append(command)
        return str(state.show if command[0] == "systemctl" else state.journal)

    monkeypatch.setattr(mail, "answer_of", answer_of)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(mail, "ENDS", tmp_path)
    monkeypatch.setattr(mail.os, "uname", lambda: SimpleNamespace(nodename="node1"))
    return state


SETTINGS = mail.Settings(to="Admin <admin@example.org>")


def reported(instance: str) -> Any:
    """What becomes of an instance, from systemd's answer to the mail."""
    mail.run_look(instance)
    return mail.report(instance, SETTINGS)


def test_a_mail_says_who_where_why_and_what_next(machine: SimpleNamespace) -> None:
    sent = reported("llamaforge-worker")
    said = "[LlamaForge] llamaforge-worker.service on node1: exit code 78 "
    assert sent["Subject"].startswith(said)
    text = sent.get_content()
    for piece in (
        "host      node1",
        "unit      llamaforge-worker.service",
        "reason    exit code 78 (something that a restart can't mend)",
        "restarts  3 since",
        "status    the token is missing",
        "sudo systemctl restart llamaforge-worker.service",
        "Grüße, das Token fehlt",
    ):
        assert piece in text
    assert machine.asked[-1][:2] == ("journalctl", "--unit=llamaforge-worker.service")


def test_a_unit_that_systemd_starts_again_is_not_mailed_about(machine: SimpleNamespace) -> None:
    machine.show = "ActiveState=activating\nSubState=auto-restart\nResult=exit-code\n"
    assert reported("llamaforge-worker") is None


def test_a_mail_about_restarts_lists_the_last_ends(machine: SimpleNamespace) -> None:
    machine.show = "ActiveState=active\nSubState=running\nResult=success\nNRestarts=6\n"
    ends = [
        {"second": n, "at": f"at {n}", "result": "signal", "code": "killed", "status": "KILL"}
        for n in range(30)
    ]
    text = json.dumps({"ends": ends, "mailed": 7.0})
    (machine.ends / "llamaforge-worker.json").write_text(text, encoding="utf-8")
    sent = reported("llamaforge-worker.restarts")
    text = sent.get_content()
    assert "6 since somebody started it; more than 5 in 10 minutes" in text
    assert text.count("signal KILL\n") == 1 + mail.SHOWN_ENDS
    assert "at 29  signal KILL" in text
    assert "at 19 " not in text


@pytest.mark.parametrize("instance", ["llamaforge-worker", "llamaforge-worker.restarts"])
def test_a_machine_that_answers_nothing_is_still_mailed_about(
    machine: SimpleNamespace, instance: str
) -> None:
    machine.show = machine.journal = ""
    text = reported(instance).get_content()
    assert "reason    not known" in text
    assert "(no line could be read)" in text


@given(st.text(), st.text())
def test_nothing_in_a_name_or_a_log_makes_a_header(subject: str, body: str) -> None:
    made = mail.message(SETTINGS, subject + "\r\nBcc: x@example.org", body)
    parsed = email.message_from_bytes(bytes(made), policy=email.policy.default)
    assert sorted(made.keys()) == sorted(parsed.keys())
    assert "Bcc" not in parsed
    assert parsed["Subject"].count("\n") == 0
    assert max(len(line) for line in bytes(made).split(b"\r\n")) < 998


def test_control_characters_of_a_log_do_not_reach_a_reader(machine: SimpleNamespace) -> None:
    machine.journal = "\x1b[31mred\x07\n.\nnext\n"
    text = reported("llamaforge-worker").get_content()
    assert "\x1b" not in text
    assert "\n.\nnext" in text


@pytest.mark.parametrize("to", ["two words", "a@b, <", "@", "a@b c@d", "nobody:;"])
def test_an_address_that_is_none_is_a_mistake(to: str) -> None:
    with pytest.raises(mail.Mistake, match="not an address"):
        mail.message(mail.Settings(to=to), "s", "b")


# ── how it leaves ─────────────────────────────────────────────────────────────────────────────


class Box:
    """Keeps what a server takes; refuses addresses that begin with `no`."""

    def __init__(self) -> None:
        self.mails: list[email.message.EmailMessage] = []
        self.busy = 0
        """How many attempts are sent away first."""

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address.startswith("no"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.busy:
            self.busy -= 1
            return "451 later, please"
        sent = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(sent, email.message.EmailMessage)
        self.mails.append(sent)
        return "250 OK"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost`, its key in the same file."""
    return certificate_for(tmp_path_factory.mktemp("certificate"), "localhost")


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=data.password == b"geheim", handled=data.password == b"geheim")


def serve(box: Box, certificate: Path, **options: Any) -> Controller:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Controller(box, hostname="localhost", port=port, tls_context=context, **options)
    server.start()
    return server


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def settings(box: Box, certificate: Path) -> Any:
    """Settings for a server that runs."""
    server = serve(box, certificate, authenticator=authenticate, auth_required=True)
    yield mail.Settings(
        to="admin@example.org",
        how="smtp",
        host="localhost",
        port=server.server.sockets[0].getsockname()[1],
        ca=str(certificate),
        user="forge",
        password="geheim",
        timeout=5,
        tries=2,
    )
    server.stop()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(mail.time, "sleep", taken.append)
    return taken


def changed(settings: Any, **fields: Any) -> Any:
    return mail.Settings(**{**settings.__dict__, **fields})


def test_a_mail_arrives_over_starttls(
    box: Box, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    mail.send(settings, mail.message(settings, "Grüße", "Zeile\n" * 3))
    assert [(one["Subject"], one["To"]) for one in box.mails] == [
        ("[LlamaForge] Grüße", "admin@example.org")
    ]
    said = capsys.readouterr().err
    assert "TLSv1.3, certificate checked" in said
    assert "geheim" not in said


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(
    settings: Any, pauses: list[float]
) -> None:
    with pytest.raises(mail.NotSent, match="certificate verify failed"):
        mail.send(changed(settings, ca=""), mail.message(settings, "s", "b"))
    assert pauses == []


def test_a_wrong_password_is_said_and_not_tried_again(settings: Any, pauses: list[float]) -> None:
    with pytest.raises(mail.NotSent, match="535") as why:
        mail.send(changed(settings, password="falsch"), mail.message(settings, "s", "b"))
    assert "falsch" not in str(why.value)
    assert pauses == []


def test_refused_recipients_are_named(box: Box, settings: Any, pauses: list[float]) -> None:
    some = changed(settings, to="admin@example.org, nobody@example.org")
    with pytest.raises(mail.NotSent, match=r"refuses nobody@example\.org \(550 no such user\)"):
        mail.send(some, mail.message(some, "s", "b"))
    assert len(box.mails) == 1
    none = changed(settings, to="nobody@example.org")
    with pytest.raises(mail.NotSent, match=r"refuses nobody@example\.org"):
        mail.send(none, mail.message(none, "s", "b"))
    assert pauses == []


def test_a_server_that_is_busy_is_tried_again(
    box: Box, settings: Any, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    box.busy = 1
    mail.send(settings, mail.message(settings, "s", "b"))
    assert (len(box.mails), pauses) == (1, [10])
    assert "try 1 of 2: " in capsys.readouterr().err


def test_a_dead_server_is_given_up(settings: Any, pauses: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dead = changed(settings, host="127.0.0.1", port=port, tries=4)
    with pytest.raises(mail.NotSent, match="refused"):
        mail.send(dead, mail.message(dead, "s", "b"))
    assert pauses == [10, 20, 40]


def test_a_server_that_hangs_up_or_speaks_something_else_is_no_crash(
    settings: Any, pauses: list[float]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        other = changed(settings, host="127.0.0.1", port=silent.getsockname()[1], timeout=1)
        with pytest.raises(mail.NotSent, match="timed out"):
            mail.send(other, mail.message(other, "s", "b"))


def sendmail(folder: Path, body: str) -> Path:
    """A program that is called as sendmail is."""
    file = folder / "sendmail"
    file.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def test_sendmail_gets_the_mail(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    program = sendmail(tmp_path, f'echo "$@" >{kept}.args; cat >{kept}')
    local = mail.Settings(to="root", sendmail=str(program))
    mail.hand_over(local, bytes(mail.message(local, "s", "Grüße\n.\nnext\n")))
    sent = email.message_from_bytes(kept.read_bytes(), policy=email.policy.default)
    assert sent["To"] == "root"
    assert Path(f"{kept}.args").read_text(encoding="utf-8") == "-t -i\n"


def test_without_a_mail_program_the_next_step_is_named(tmp_path: Path) -> None:
    local = mail.Settings(to="root", sendmail=str(tmp_path / "none"))
    with pytest.raises(mail.NotSent, match=r"none.*msmtp-mta, or set how = smtp in"):
        mail.hand_over(local, b"")


def test_a_sendmail_that_fails_says_why(tmp_path: Path) -> None:
    program = sendmail(tmp_path, "echo 'no queue' >&2; exit 75")
    with pytest.raises(mail.NotSent, match="ended with 75 and said: no queue"):
        mail.hand_over(mail.Settings(to="root", sendmail=str(program)), b"")
    with pytest.raises(mail.NotSent, match="No such file"):
        mail.hand_over(mail.Settings(to="root", sendmail=str(tmp_path / "gone")), b"")


# ── the program ───────────────────────────────────────────────────────────────────────────────


def test_it_runs_by_itself_and_says_what_is_missing(tmp_path: Path) -> None:
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-I", str(FOLDER / "mail.py"), "--test"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("/etc/llamaforge/mail.conf is missing; copy mail.conf.example")


def test_a_report_for_sendmail_is_left_for_root_and_handed_over(
    tmp_path: Path, machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    program = sendmail(tmp_path, f"cat >{kept}")
    (tmp_path / "mail.conf").write_text(f"to = root\nsendmail = {program}\n", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    assert mail.main(["--hand-over"]) == 0  # nothing there: the mail went by SMTP
    assert mail.main(["--look", "llamaforge-worker"]) == 0
    assert mail.main(["--report", "llamaforge-worker"]) == 0
    assert mail.main(["--hand-over"]) == 0
    assert b"exit code 78" in kept.read_bytes()


def test_a_link_in_place_of_the_mail_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mail").symlink_to("/etc/hostname")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    with pytest.raises(OSError, match="Too many levels"):
        mail.main(["--hand-over"])


@pytest.mark.parametrize("arguments", [[], ["--tset"], ["--test", "x"], ["--report"]])
def test_bad_usage_prints_how_to_call_it(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert mail.main(arguments) == 2
    assert "mail --test" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mail", "restarts"])
def test_the_oldest_python_of_a_system_reads_it(name: str) -> None:
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 9))
