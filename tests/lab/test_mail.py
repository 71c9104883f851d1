"""Mails when the worker's service fails, on a real machine and to a real SMTP server.

The worker itself is a stand-in that ends as a test wants; the unit around it is the shipped one.
"""

from __future__ import annotations

import email
import email.policy
import json
import ssl
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from certificate import make as certificate_for
from lab import Lab, Node

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
PASSWORD = "sehr-geheim-7f3a"
PROGRAM = "/usr/local/libexec/llamaforge/mail"
UNIT = "/usr/local/lib/systemd/system/llamaforge-worker.service"
STAND_IN = """\
[Service]
Type=simple
ExecStart=
ExecStart=/usr/local/bin/stand-in
RestartSec=100ms
WatchdogSec=0
"""
WORKER = """\
#!/bin/sh
echo "Grüße vom Worker"
read code </etc/stand-in
test "$code" = wait && exec sleep infinity
exit "$code"
"""


class Server:
    """An SMTP server on the lab's bridge, with TLS and a password; keeps what it takes."""

    port = 2525

    def __init__(self, address: str, certificate: Path) -> None:
        self.mails: list[EmailMessage] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._controller = Controller(
            self,
            hostname=address,
            port=self.port,
            tls_context=context,
            authenticator=self._authenticate,
            auth_required=True,
        )

    def __enter__(self) -> Server:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        sent = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(sent, EmailMessage)
        self.mails.append(sent)
        return "250 OK"

    def _authenticate(self, *asked: Any) -> AuthResult:
        data = asked[-1]
        right = data.password == PASSWORD.encode()
        return AuthResult(success=right, handled=right)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_for(tmp_path_factory.mktemp("certificate"), "lab-host")


@pytest.fixture(scope="module")
def node(lab: Lab, certificate: Path) -> Node:
    """A machine with the shipped units, set up by hand as packaging/mail/README.md says."""
    node = lab.add("mailer")
    node.boot()
    for source, target, mode in (
        ("mail/mail.py", PROGRAM, 0o755),
        ("mail/restarts.py", "/usr/local/libexec/llamaforge/restarts", 0o755),
        (
            "mail/llamaforge-mail@.service",
            "/usr/local/lib/systemd/system/llamaforge-mail@.service",
            0o644,
        ),
        ("mail/60-mail.conf", f"/etc/systemd/system/{Path(UNIT).name}.d/60-mail.conf", 0o644),
        ("systemd/llamaforge-worker.service", UNIT, 0o644),
        ("sysusers.d/llamaforge.conf", "/etc/sysusers.d/llamaforge.conf", 0o644),
    ):
        node.write(target, (PACKAGING / source).read_text(encoding="utf-8"), mode=mode)
    node.write(f"/etc/systemd/system/{Path(UNIT).name}.d/70-stand-in.conf", STAND_IN)
    node.write("/usr/local/bin/stand-in", WORKER, mode=0o755)
    pem = certificate.read_text(encoding="utf-8")
    node.write("/etc/llamaforge/mail-ca.pem", pem[pem.index("-----BEGIN CERTIFICATE") :])
    node.run("systemd-sysusers")
    return node


@pytest.fixture
def server(lab: Lab, certificate: Path) -> Iterator[Server]:
    with Server(lab.gateway, certificate) as server:
        yield server


def set_up(node: Node, settings: str, code: str) -> None:
    """Starts a worker that ends with `code`, with these settings and nothing counted yet."""
    node.run("systemctl", "stop", "llamaforge-worker", "llamaforge-mail@*")
    node.shell("rm -rf /run/llamaforge-mail; systemctl reset-failed; journalctl --rotate -q")
    node.write("/etc/llamaforge/mail.conf", settings, mode=0o600)
    node.write("/etc/stand-in", f"{code}\n")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "start", "llamaforge-worker", check=False)


SMTP = f"""\
to = Admin <admin@example.org>
how = smtp
host = lab-host
port = {Server.port}
ca = /etc/llamaforge/mail-ca.pem
user = forge
password = {PASSWORD}
"""


def shown(node: Node, unit: str, name: str) -> str:
    return node.run("systemctl", "show", unit, f"--property={name}", "--value").stdout.strip()


def mail_ended(node: Node, instance: str) -> bool:
    return shown(node, f"llamaforge-mail@{instance}", "ActiveState") in ("inactive", "failed")


def test_the_units_are_valid(node: Node) -> None:
    said = node.run("systemd-analyze", "verify", "llamaforge-mail@x.service", check=False)
    assert "llamaforge-mail" not in said.stderr
    exposure = node.shell(
        "systemd-analyze security --no-pager llamaforge-mail@x.service | tail -1", check=False
    )
    assert float(exposure.stdout.split(":")[1].split()[0]) <= 2.0, exposure.stdout


def test_a_final_exit_is_one_mail(node: Node, server: Server) -> None:
    set_up(node, SMTP, "78")
    node.wait_for(lambda: server.mails, 20, "a mail arrives")
    assert shown(node, "llamaforge-worker", "ActiveState") == "failed"
    (mail,) = server.mails
    assert mail["To"] == "Admin <admin@example.org>"
    text = mail.get_content()
    for piece in (
        "host      mailer",
        "unit      llamaforge-worker.service",
        "reason    exit code 78",
        "restarts  0 since",
        "Grüße vom Worker",
        "sudo systemctl restart llamaforge-worker.service",
    ):
        assert piece in text
    node.wait_for(lambda: mail_ended(node, "llamaforge-worker"), 20, "the mail's unit ends")
    assert len(server.mails) == 1


def test_quick_crashes_are_one_mail_and_no_hindrance(node: Node, server: Server) -> None:
    set_up(node, SMTP, "1")
    crashes = lambda: int(shown(node, "llamaforge-worker", "NRestarts") or 0)  # noqa: E731
    node.wait_for(lambda: crashes() >= 12, 30, "twelve crashes")
    node.wait_for(lambda: server.mails, 20, "a mail arrives")
    node.write("/etc/stand-in", "wait\n")
    node.wait_for(
        lambda: shown(node, "llamaforge-worker", "SubState") == "running", 20, "the worker waits"
    )
    node.wait_for(
        lambda: mail_ended(node, "llamaforge-worker.restarts"), 20, "the mail's unit ends"
    )
    (mail,) = server.mails
    assert "ends again and again" in mail.get_content()
    assert mail.get_content().count("  exit code 1") >= 6
    counted = json.loads(node.read("/run/llamaforge-mail/llamaforge-worker.json"))
    assert len(counted["ends"]) >= 12


def test_what_was_asked_for_is_not_mailed_about(node: Node, server: Server) -> None:
    set_up(node, SMTP + "restarts = 1\n", "wait")
    for _ in range(4):
        node.run("systemctl", "restart", "llamaforge-worker")
    node.run("systemctl", "stop", "llamaforge-worker")
    assert shown(node, "llamaforge-worker", "ActiveState") == "inactive"
    assert node.run("test", "-e", "/run/llamaforge-mail", check=False).returncode == 1
    assert server.mails == []


def test_a_mail_can_be_tried(node: Node, server: Server) -> None:
    set_up(node, SMTP, "wait")
    done = node.run(PROGRAM, "--test")
    said = done.stderr
    assert f"connected to lab-host:{Server.port}, TLSv1.3, certificate checked" in said
    assert "logged in as forge" in said
    assert "took the mail to Admin <admin@example.org>" in said
    assert [mail["Subject"] for mail in server.mails] == ["[LlamaForge] a test from mailer"]
    node.write("/etc/llamaforge/mail.conf", SMTP.replace("-7f3a", "-falsch"), mode=0o600)
    wrong = node.run(PROGRAM, "--test", check=False)
    assert wrong.returncode == 1
    assert "535" in wrong.stderr


def test_the_password_is_nowhere_to_be_seen(node: Node, server: Server) -> None:
    """While a mail's unit runs: its arguments, its environment, the journal, and its files."""
    node.run("systemctl", "stop", "llamaforge-worker")
    set_up(node, SMTP.replace(str(Server.port), "9").replace("lab-host", "192.0.2.1"), "78")
    running = "systemctl show -P MainPID llamaforge-mail@llamaforge-worker"
    reporting = f"grep -z -- --report /proc/$({running})/cmdline"
    node.wait_for(lambda: node.shell(reporting).stdout, 20, "the mail's unit runs")
    look = f"""
        pid=$({running})
        tr '\\0' '\\n' </proc/$pid/environ; tr '\\0' ' ' </proc/$pid/cmdline
        ps axeww; systemctl show llamaforge-mail@llamaforge-worker llamaforge-worker
        journalctl --no-pager -o export
        runuser -u llamaforge -- sh -c 'cat /run/credentials/*/mail.conf /etc/llamaforge/mail.conf'
        grep -c password /run/credentials/llamaforge-mail@llamaforge-worker.service/mail.conf
    """
    seen = node.shell(look, check=False).stdout
    assert "CREDENTIALS_DIRECTORY=" in seen
    assert seen.rstrip().endswith("\n1"), "the settings are there, for root"
    assert PASSWORD not in seen
    node.run("systemctl", "stop", "llamaforge-mail@llamaforge-worker")


def test_a_dead_server_is_said_and_never_holds_up_the_worker(node: Node) -> None:
    set_up(node, SMTP + "tries = 2\n", "1")
    node.wait_for(
        lambda: "again in 10 s" in logged(node), 20, "the mail program says that nobody answers"
    )
    begun, before = time.monotonic(), int(shown(node, "llamaforge-worker", "NRestarts"))
    node.wait_for(
        lambda: int(shown(node, "llamaforge-worker", "NRestarts")) >= before + 5, 20, "restarts"
    )
    assert time.monotonic() - begun < 10
    node.wait_for(lambda: "not sent: " in logged(node), 40, "the mail program gives up")
    assert shown(node, "llamaforge-mail@llamaforge-worker.restarts", "ActiveState") == "failed"


def logged(node: Node) -> str:
    return "\n".join(str(entry["MESSAGE"]) for entry in node.journal("llamaforge-mail@*", "-b"))


def test_sendmail_is_handed_the_mail_with_all_its_rights(node: Node) -> None:
    node.write(
        "/usr/sbin/sendmail",
        '#!/bin/sh\n{ id -u; grep NoNewPrivs /proc/$$/status; echo "$@"; cat; } >/root/sent\n',
        mode=0o755,
    )
    set_up(node, "to = root\n", "78")
    sent = node.path("/root/sent")
    node.wait_for(sent.exists, 60, "sendmail is called")
    node.wait_for(lambda: mail_ended(node, "llamaforge-worker"), 20, "the mail's unit ends")
    user, sandbox, arguments, rest = node.read("/root/sent").split("\n", 3)
    assert (user, sandbox.split()[1], arguments) == ("0", "0", "-t -i")
    parsed = email.message_from_string(rest, policy=email.policy.default)
    assert parsed["To"] == "root"
    assert "exit code 78" in parsed["Subject"]
    assert shown(node, "llamaforge-mail@llamaforge-worker", "Result") == "success"


def test_a_mistake_in_the_settings_is_a_line_in_the_journal(node: Node) -> None:
    set_up(node, "to = root\nhow = pigeon\n", "78")
    node.wait_for(
        lambda: "line 2: how is 'pigeon', not sendmail or smtp" in logged(node), 20, "the line"
    )
