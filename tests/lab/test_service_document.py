"""docs/SERVICE.md, command by command, on a coordinator's host and a worker's.

Its code blocks say on which machine they are typed: ```sh worker, ```sh coordinator, or both. Words
after that: `exit=1` for another exit code than 0 (`exit=*` for any), `for=2s` for a command that a
person ends with Ctrl-C, `within=20s` for one whose output comes true after a while. A ```text block
after one shows lines of its output; numbers and `…` stand for anything.

The addresses are replaced by the machines' own. `git clone` copies the checkout, since the lab's
machines reach nothing outside; everything else is as on the page.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab import Lab, Node

PAGE = Path(__file__).resolve().parents[2] / "docs" / "SERVICE.md"
PERSON = "alice"
CLONE = """\
#!/bin/sh
set -e
test "$1" = clone
mkdir "$3"
cd /srv/llamaforge
tar -c --exclude='./.*' --exclude=./runs . | tar -x -C "$3"
"""
TOOLS = ("sudo", "nc", "curl", "ss", "taskset", "numactl")


@dataclass(frozen=True)
class Block:
    """One fenced block of commands, and what the page shows after it."""

    line: int
    machines: tuple[str, ...]
    script: str
    words: dict[str, str] = field(default_factory=dict)
    shown: str = ""

    def __str__(self) -> str:
        return f"line {self.line} on {' and '.join(self.machines)}"


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page, each with the output that it shows."""
    found: Block | None = None
    for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        kind, _, rest = match[1].partition(" ")
        if kind == "sh":
            if found:
                yield found
            machines = tuple(word for word in rest.split() if "=" not in word)
            words = dict(word.split("=", 1) for word in rest.split() if "=" in word)
            found = Block(text.count("\n", 0, match.start()) + 2, machines, match[2], words)
        elif kind == "text":
            assert found is not None, f"output without a command: {match[2]}"
            yield Block(found.line, found.machines, found.script, found.words, match[2])
            found = None
    if found:
        yield found


def missing(shown: str, said: str) -> str:
    """The first line of a page's output that a real one lacks; "" for none.

    The order is not compared: systemctl has one of its own, and errors come apart from the rest.
    Numbers may be others, but not those of a setting or a property.
    """
    lines = said.splitlines()
    for wanted in filter(None, (line.strip() for line in shown.splitlines())):
        if re.fullmatch(r"\w+=[^\s…]*", wanted):
            if wanted not in (line.strip() for line in lines):
                return wanted
            continue
        pieces = re.split(r"(…|\d+(?:\.\d+)*|\s+)", wanted)
        pattern = "".join(
            ".*"
            if piece == "…"
            else r"[\d.]+"
            if piece[:1].isdigit()
            else r"\s+"
            if piece.isspace()
            else re.escape(piece)
            for piece in pieces
        )
        if not any(re.search(rf"^\s*{pattern}", line) for line in lines):
            return wanted
    return ""


PAGE_TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = list(blocks(PAGE_TEXT))


# ── the page itself ───────────────────────────────────────────────────────────────────────────


def test_output_is_compared_by_its_shape() -> None:
    assert missing("a 12 b\nc …", "x\na  7 b here\nno\nc d") == ""
    assert missing("a\nb", "b\nc") == "a"
    assert missing("active", "inactive\n") == "active"
    assert missing("10.9.66.154:29500", "192.0.2.1:29501") == ""
    assert missing("ExecMainStatus=78", "ExecMainStatus=1\n") == "ExecMainStatus=78"
    assert missing("Nice=1", "Nice=10") == "Nice=1"


def test_blocks_are_found_with_their_output() -> None:
    found = list(
        blocks("```sh worker exit=1\na\n```\n\n```text\nb\n```\n```sh coordinator\nc\n```\n")
    )
    assert [(one.machines, one.script, one.shown) for one in found] == [
        (("worker",), "a\n", "b\n"),
        (("coordinator",), "c\n", ""),
    ]
    assert found[0].words == {"exit": "1"}


def test_every_heading_of_the_guide_is_there() -> None:
    for heading in (
        *("Why a service", "Architecture", "Installation", "Usage", "Monitoring", "Management"),
        *("Troubleshooting", "Advanced", "Security", "Performance", "Comparison"),
        *("A complete example with two machines", "Quick reference"),
    ):
        assert f"\n## {heading}\n" in PAGE_TEXT


def test_no_command_stands_only_in_prose() -> None:
    """What a sentence or a table tells to type is typed in a block, perhaps with more after it."""
    prose = re.sub(r"^```.*?^```$", "", PAGE_TEXT, flags=re.MULTILINE | re.DOTALL)
    told = re.findall(r"`((?:sudo|systemctl|journalctl|nc|curl|ss) [^`]*)`", prose)
    typed = "\n".join(block.script for block in BLOCKS)
    placeholders = {
        "sudo ./install.sh -- …": "sudo ./install.sh",
        "sudo llamaforge worker install --path DIR": "--path ",
    }
    interactive = {"sudo systemctl edit llamaforge-worker"}
    assert len(told) > 10
    missed = [one for one in told if placeholders.get(one, one) not in typed]
    assert set(missed) <= interactive


# ── on machines ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def machines(lab: Lab) -> dict[str, Node]:
    """Two machines with a person on them who may use sudo."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        pytest.skip(f"the page's commands need {', '.join(lacking)}")
    found = {name: lab.add(name, image="installed") for name in ("coordinator", "worker")}
    lab.boot()
    for node in found.values():
        node.shell(f"useradd --create-home --shell /bin/bash {PERSON}")
        node.write(f"/etc/sudoers.d/{PERSON}", f"{PERSON} ALL=(ALL) NOPASSWD: ALL\n", mode=0o440)
        node.write("/usr/local/bin/git", CLONE, mode=0o755)
    return found


def type_in(node: Node, script: str, words: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of a script that a person types; its last folder is the next's first."""
    if "for" in words:
        script = f"timeout --signal=INT {words['for']} bash -c {shlex.quote(script)} || true\n"
    told = f"cd; set -eo pipefail\n{script}"
    done = node.run("bash", "-c", told, user=PERSON, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_every_command_does_what_the_page_says(machines: dict[str, Node]) -> None:
    addresses = {
        "10.9.66.154": machines["coordinator"].address,
        "10.9.66.155": machines["worker"].address,
    }
    for block in BLOCKS:
        script, shown = block.script, block.shown
        for written, address in addresses.items():
            script, shown = script.replace(written, address), shown.replace(written, address)
        for name in block.machines:
            code, said = type_in(machines[name], script, block.words)
            patience = time.monotonic() + float(block.words.get("within", "0s").rstrip("s"))
            while missing(shown, said) and time.monotonic() < patience:
                code, said = type_in(machines[name], script, block.words)
            wanted = block.words.get("exit", "0")
            report = f"{PAGE.name}, {block}:\n{script}\nended with {code} and said:\n{said}"
            assert wanted in ("*", str(code)), report
            lacks = missing(shown, said)
            assert not lacks, f"no line like {lacks!r}\n{report}"
