#!/usr/bin/python3 -I
"""Mails a person when the worker's service ends for good, or is restarted too often.

It is a program of its own, for the system's python3 (3.9 or newer) and without any library, so
that it works when LlamaForge's environment is what is broken. It stands on a machine as
/usr/local/libexec/llamaforge/mail. Its settings are in /etc/llamaforge/mail.conf, which root alone
can read; mail.conf.example explains them.

    mail --test             send one mail now, and say step by step what happens
    mail --look INSTANCE    (llamaforge-mail@.service, as root) ask systemd about the unit
    mail --report INSTANCE  (the same, without rights) put the mail together; send it by SMTP
    mail --hand-over        (the same, as root) give the mail to sendmail, if that is the way

INSTANCE is `llamaforge-worker` for a unit that ended for good, and `llamaforge-worker.restarts`
for one that systemd keeps starting, as restarts.py counts. Exit codes: 0 done, 1 not sent, 2 the
settings are wrong.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from email.message import EmailMessage
    from smtplib import SMTP

SETTINGS = Path("/etc/llamaforge/mail.conf")
ENDS = Path("/run/llamaforge-mail")
"""One file per unit: how it ended lately. restarts.py writes it."""
FINAL_CODE = 78
"""EX_CONFIG: after this exit code systemd does not start the worker again."""
SHOWN_ENDS = 10
STORM = ".restarts"
"""How the name of an instance ends that is about restarts."""
COMMAND_SECONDS = 10
"""Patience with systemctl, journalctl and sendmail."""
PORTS = {"tls": 465, "starttls": 587, "none": 25}


class Mistake(Exception):
    """The settings are wrong; the text names the line, the value and what it should be."""


class NotSent(Exception):
    """The mail did not leave; the text says why.

    Args:
        text: why.
        again: whether to try again helps.
    """

    def __init__(self, text: str, *, again: bool) -> None:
        super().__init__(text)
        self.again = again


# ── settings ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Settings:
    """What mail.conf says; mail.conf.example has the words for people."""

    to: str = ""
    sender: str = ""
    how: str = "sendmail"
    sendmail: str = "/usr/sbin/sendmail"
    host: str = ""
    port: int = 0
    security: str = "starttls"
    ca: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    restarts: int = 5
    minutes: int = 10
    quiet_minutes: int = 60
    lines: int = 40
    tries: int = 4
    timeout: int = 20


CHOICES = {"how": ("sendmail", "smtp"), "security": tuple(PORTS)}
HIGHEST = {"port": 65535, "lines": 1000, "tries": 10, "timeout": 60}
WRITTEN = {"from": "sender"}
"""What a setting is called in the file, where Python keeps the word for itself."""


def read_settings(text: str) -> Settings:
    """Reads mail.conf: lines `name = value`, `#` comments.

    Raises:
        Mistake: a line is not understood, or the settings together make no sense.
    """
    kinds = {each.name: type(each.default) for each in fields(Settings)}
    written = {key: name for name, key in WRITTEN.items()}
    values: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        key = WRITTEN.get(name, name)
        if not equals or key not in kinds or name == "sender":
            known = [written.get(known, known) for known in kinds]
            meant = ["from"] if name == "sender" else difflib.get_close_matches(name, known, 1)
            also = f"; did you mean {meant[0]}?" if meant else ""
            raise Mistake(f"line {number}: no setting {shown(name)}{also}")
        values[key] = _number(number, name, value) if kinds[key] is int else value
        if name in CHOICES and value not in CHOICES[name]:
            raise Mistake(f"line {number}: {name} is {value!r}, not {' or '.join(CHOICES[name])}")
    return _agreeing(Settings(**values))


def _number(line: int, name: str, value: str) -> int:
    highest = HIGHEST.get(name, 100_000)
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= highest:
        raise Mistake(f"line {line}: {name} is {value!r}, not a number from 1 to {highest}")
    return int(value)


def _agreeing(settings: Settings) -> Settings:
    """Checks what settings mean together. Raises Mistake."""
    for name, value in (("to", settings.to), ("from", settings.sender)):
        if not value.isprintable():
            raise Mistake(f"{name} is {value!r}, which no mail header can hold")
    if not settings.to:
        raise Mistake("nobody to mail to: add a line `to = you@example.org`")
    if settings.how == "smtp" and not settings.host:
        raise Mistake("how is smtp, but no server is named: add a line `host = mail.example.org`")
    if settings.password and not settings.user:
        raise Mistake("there is a password, but no user")
    if settings.password and settings.security == "none":
        raise Mistake("security is none: the password would cross the network for all to read")
    return settings


def load_settings() -> Settings:
    """The settings: systemd's copy for this unit, or the file itself for root.

    Raises:
        Mistake: the file is missing, can't be read, or is wrong; names it.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    file = Path(folder) / "mail.conf" if folder else SETTINGS
    try:
        return read_settings(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Mistake(f"{SETTINGS} is missing; copy mail.conf.example there, mode 0600") from None
    except (OSError, UnicodeDecodeError) as why:
        raise Mistake(f"{SETTINGS} can't be read: {why}") from None
    except Mistake as wrong:
        raise Mistake(f"{SETTINGS}: {wrong}") from None


# ── how the unit ended ────────────────────────────────────────────────────────────────────────


def reason(result: str, code: str, status: str) -> str:
    """How a service ended, in words.

    Args:
        result: systemd's word: `exit-code`, `signal`, `oom-kill`, `watchdog`, …
        code: `exited`, `killed` or `dumped`.
        status: the exit code, or the signal's name or number.
    """
    if code == "exited":
        text = f"exit code {status}"
        if status == str(FINAL_CODE):
            text += " (something that a restart can't mend)"
    elif code in ("killed", "dumped"):
        text = f"signal {status}"
    else:
        return result or "not known"
    return text if result in ("exit-code", "signal", "") else f"{result}, {text}"


def unit_facts() -> dict[str, str]:
    """What systemd said about the unit, see `run_look`; empty where it did not answer."""
    said = (Path(os.environ["RUNTIME_DIRECTORY"]) / "facts").read_text(encoding="utf-8")
    facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    number = facts.get("ExecMainCode", "")
    facts["ExecMainCode"] = {"1": "exited", "2": "killed", "3": "dumped"}.get(number, "")
    return facts


def answer_of(*command: str) -> str:
    """What a command prints; says in the journal why there is nothing."""
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=COMMAND_SECONDS, check=False, close_fds=True
        )
    except (OSError, subprocess.TimeoutExpired) as why:
        say(f"{command[0]}: {why}")
        return ""
    if done.returncode:
        say(f"{command[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")


def last_ends(unit: str) -> list[tuple[str, str]]:
    """When and how a unit ended lately, oldest first; empty where nothing was counted."""
    try:
        seen = json.loads((ENDS / f"{unit}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    ends = [(end["at"], reason(end["result"], end["code"], end["status"])) for end in seen["ends"]]
    return ends[-SHOWN_ENDS:]


# ── the mail ──────────────────────────────────────────────────────────────────────────────────


def unit_of(instance: str) -> str:
    """The name of the unit, without `.service`."""
    return instance[: -len(STORM)] if instance.endswith(STORM) else instance


def report(instance: str, settings: Settings) -> EmailMessage | None:
    """The mail about a unit; None where there is nothing to tell: systemd starts it again."""
    unit, storm = unit_of(instance), instance.endswith(STORM)
    service = f"{unit}.service"
    facts, ends, host = unit_facts(), last_ends(unit), os.uname().nodename
    if not storm and facts.get("ActiveState", "failed") != "failed":
        return None  # systemd 254 and newer call for a mail on every restart
    last = ("Result", "ExecMainCode", "ExecMainStatus")
    why = reason(*(facts.get(name, "") for name in last))
    if storm:  # it may be running again
        why = ends[-1][1] if ends else "not known"
    restarts = f"{facts.get('NRestarts', 'not known')} since somebody started it"
    if storm:
        what = "ends again and again; systemd keeps starting it"
        restarts += f"; more than {settings.restarts} in {settings.minutes} minutes"
    else:
        what = "has ended, and systemd does not start it again"
    rows = {
        "host": host,
        "unit": service,
        "time": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "reason": why,
        "restarts": restarts,
        "status": facts.get("StatusText", ""),
    }
    body = f"{service} on {host} {what}.\n\n"
    body += "".join(f"    {name:9} {value}\n" for name, value in rows.items() if value)
    body += f"\nWhat to do next, on {host}:\n\n{NEXT.format(unit=service)}"
    if storm:
        body += f"\nMails about restarts now pause for {settings.quiet_minutes} minutes.\n"
    if ends:
        body += "\nIts last ends:\n\n" + "".join(f"    {at}  {how}\n" for at, how in ends)
    body += f"\nLast lines of its journal:\n\n{journal(service, settings.lines)}"
    return message(settings, f"{service} on {host}: {why}", body)


NEXT = """\
    sudo llamaforge doctor
    sudo journalctl -u {unit} -e
    sudo systemctl restart {unit}
"""


def journal(unit: str, lines: int) -> str:
    """The last lines of a unit's journal, or a line that says why there are none."""
    options = ("--no-pager", "--quiet", "--output=short-iso", f"--lines={lines}")
    return answer_of("journalctl", f"--unit={unit}", *options) or "(no line could be read)\n"


def message(settings: Settings, subject: str, body: str) -> EmailMessage:
    """A mail whose headers hold one line each, whatever is in a name or a log."""
    from email.message import EmailMessage
    from email.policy import SMTP as FORM
    from email.utils import formatdate, make_msgid

    host = os.uname().nodename
    mail = EmailMessage(policy=FORM)
    mail["Subject"] = shown(f"[LlamaForge] {subject}")[:200]
    _address(mail, "From", settings.sender or f"LlamaForge <root@{host}>")
    _address(mail, "To", settings.to)
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = make_msgid("llamaforge", domain=host)
    mail["Auto-Submitted"] = "auto-generated"  # keeps holiday notices from answering
    kept = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in body
    )
    mail.set_content(kept, charset="utf-8", cte="quoted-printable")
    return mail


def _address(mail: EmailMessage, name: str, value: str) -> None:
    """Sets a header of addresses. Raises Mistake."""
    try:
        mail[name] = value
        found = mail[name].addresses
        names = [one.username for one in found]
        lost = any("invalid address" in str(defect) for defect in mail[name].defects)
    except (ValueError, IndexError):
        names, lost = [], True
    if lost or not names or any(not one or " " in one for one in names):
        raise Mistake(f"{name.lower()} is {value!r}, which is not an address")


def shown(text: str) -> str:
    """Text on one line, without anything that a header or a terminal would act on."""
    return "".join(c if c.isprintable() else " " for c in text)


# ── the ways out ──────────────────────────────────────────────────────────────────────────────


def send(settings: Settings, mail: EmailMessage) -> None:
    """Sends by SMTP, trying again for about a minute where that may help.

    Raises:
        NotSent: it did not leave.
    """
    for attempt in range(1, settings.tries + 1):
        try:
            return send_once(settings, mail)
        except NotSent as why:
            if not why.again or attempt == settings.tries:
                raise
            pause = 5 * 2**attempt
            say(f"try {attempt} of {settings.tries}: {why}; again in {pause} s")
            time.sleep(pause)
    return None


def send_once(settings: Settings, mail: EmailMessage) -> None:
    """One try over SMTP. Raises NotSent."""
    import smtplib
    from ssl import SSLCertVerificationError

    where = f"{settings.host}:{settings.port or PORTS[settings.security]}"
    try:
        with connection(settings, where) as server:
            if settings.user:
                server.login(settings.user, settings.password)
                say(f"logged in as {settings.user}")
            refused = server.send_message(mail)
    except smtplib.SMTPRecipientsRefused as why:
        raise NotSent(f"{where} refuses {_refusals(why.recipients)}", again=False) from None
    except smtplib.SMTPResponseException as why:
        text = f"{where} answers {why.smtp_code} {_text(why.smtp_error)}"
        raise NotSent(text, again=not 500 <= why.smtp_code < 600) from None
    except smtplib.SMTPNotSupportedError as why:
        raise NotSent(f"{where}: {why}; look at security and user", again=False) from None
    except (OSError, smtplib.SMTPException) as why:
        raise NotSent(
            f"{where}: {why}", again=not isinstance(why, SSLCertVerificationError)
        ) from None
    if refused:
        raise NotSent(f"{where} took it, but refuses {_refusals(refused)}", again=False)
    say(f"{where} took the mail to {settings.to}")


@contextlib.contextmanager
def connection(settings: Settings, where: str) -> Iterator[SMTP]:
    """A connection to the server, its certificate checked unless security is none."""
    import smtplib
    import ssl

    port = settings.port or PORTS[settings.security]
    if settings.security == "none":
        server = smtplib.SMTP(settings.host, port, timeout=settings.timeout)
        say(f"connected to {where}, not encrypted")
    else:
        trusted = ssl.create_default_context(cafile=settings.ca or None)
        if settings.security == "tls":
            server = smtplib.SMTP_SSL(
                settings.host, port, timeout=settings.timeout, context=trusted
            )
        else:
            server = smtplib.SMTP(settings.host, port, timeout=settings.timeout)
            server.starttls(context=trusted)
        version = getattr(server.sock, "version", str)() or "encrypted"
        say(f"connected to {where}, {version}, certificate checked")
    with server:
        yield server


def _refusals(refused: dict[str, tuple[int, bytes]]) -> str:
    said = (f"{who} ({code} {_text(text)})" for who, (code, text) in refused.items())
    return ", ".join(said)


def _text(error: bytes | str) -> str:
    return shown(error.decode(errors="replace") if isinstance(error, bytes) else error)


def hand_over(settings: Settings, mail: bytes) -> None:
    """Gives a mail to sendmail, or what calls itself so (postfix, exim, msmtp). Raises NotSent."""
    command = [settings.sendmail, "-t", "-i"]
    try:
        done = subprocess.run(
            command, input=mail, capture_output=True, timeout=3 * COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as why:
        advice = ""
        if isinstance(why, FileNotFoundError):
            advice = f"; install a mail program such as msmtp-mta, or set how = smtp in {SETTINGS}"
        raise NotSent(f"{settings.sendmail}: {why}{advice}", again=False) from None
    if done.returncode:
        said = _text(done.stderr or done.stdout).strip() or "nothing"
        text = f"{settings.sendmail} ended with {done.returncode} and said: {said}"
        raise NotSent(text, again=False)
    say(f"{settings.sendmail} took the mail to {settings.to}")


# ── the commands ──────────────────────────────────────────────────────────────────────────────


def say(text: str) -> None:
    """One line for the journal or the terminal."""
    print(shown(text), file=sys.stderr, flush=True)


def run_look(instance: str) -> None:
    """`--look`: as root, since the message bus knows no users of DynamicUser= on every system."""
    asked = "ActiveState,SubState,Result,NRestarts,ExecMainCode,ExecMainStatus,StatusText"
    said = answer_of("systemctl", "show", f"{unit_of(instance)}.service", f"--property={asked}")
    file = Path(os.environ["RUNTIME_DIRECTORY"]) / "facts"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as facts:
        os.fchmod(facts.fileno(), 0o644)  # its folder is closed to others
        facts.write(said)


def run_report(instance: str) -> None:
    """`--report`: as a user without rights. A mail for sendmail is left for root to hand over."""
    settings = load_settings()
    mail = report(instance, settings)
    if mail is None:
        say(f"{instance}: systemd starts it again, so there is nothing to mail")
    elif settings.how == "smtp":
        send(settings, mail)
    else:
        (Path(os.environ["RUNTIME_DIRECTORY"]) / "mail").write_bytes(bytes(mail))


def run_hand_over() -> None:
    """`--hand-over`: as root, since sendmail programs may need rights that no sandbox gives."""
    file = Path(os.environ["RUNTIME_DIRECTORY"]) / "mail"
    try:
        left = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    with os.fdopen(left, "rb") as waiting:
        hand_over(load_settings(), waiting.read())


def run_test() -> None:
    """`--test`: one mail, by the way that the settings say, without trying again."""
    settings = load_settings()
    host = os.uname().nodename
    body = (
        f"This is a test: {host} can mail when its LlamaForge worker fails.\n\n"
        f"It mails when llamaforge-worker.service ends for good, and when it is restarted more\n"
        f"than {settings.restarts} times in {settings.minutes} minutes.\n"
    )
    mail = message(settings, f"a test from {host}", body)
    if settings.how == "smtp":
        send_once(settings, mail)
    else:
        hand_over(settings, bytes(mail))


COMMANDS: dict[tuple[str, int], Callable[..., None]] = {
    ("--test", 1): run_test,
    ("--look", 2): run_look,
    ("--report", 2): run_report,
    ("--hand-over", 1): run_hand_over,
}


def main(arguments: list[str]) -> int:
    """Runs one command; says on standard error what happened."""
    command = COMMANDS.get(("".join(arguments[:1]), len(arguments)))
    if command is None:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        command(*arguments[1:])
    except Mistake as wrong:
        say(str(wrong))
        return 2
    except NotSent as why:
        say(f"not sent: {why}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
