"""Machines join a fleet, stay themselves whatever happens to them, and are sent away; and the
secrets of all that are nowhere to be found."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from lab_fleet import COORDINATOR, STATE, Fleet
from lab_people import at_a_terminal, make_user
from lab_service import UNIT, main_pid, status, until_waiting

from lab import Lab, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

IDENTITY = "/var/lib/llamaforge/identity/identity.pem"
SEEN = "/root/seen"
WATCH = f"""
while sleep 0.05; do
  cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | sort -u >> {SEEN}
done
"""
"""Writes down what every process was called and given, as an attentive neighbour would."""


class Joined:
    """A fleet whose two machines have joined in two ways, and the secrets that went about."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.head, self.machines = fleet.head, fleet.workers
        self.tokens: list[str] = []

    def token(self) -> str:
        self.tokens.append(self.fleet.token())
        return self.tokens[-1]

    def join(self, node: Node, token: str, *options: str) -> tuple[int, str]:
        """With the token on standard input; exit code and all that was said."""
        words = ("llamaforge", "worker", "join", self.fleet.address, *options)
        done = node.run(*words, input=token + "\n", check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def secrets(self) -> list[str]:
        """What must be nowhere: tokens, the secret part of each, a line of each private key."""
        keys = [node.read(IDENTITY) for node in self.machines]
        keys += [self.head.read(f"{STATE}/authority/{name}") for name in self.authority()]
        lines = [line for key in keys for line in body(key)]
        return [*self.tokens, *(token.split(".")[2] for token in self.tokens), *lines]

    def authority(self) -> list[str]:
        listed = self.head.shell(
            f"cd {STATE}/authority && grep -rl 'PRIVATE KEY' . | sed 's|^./||'"
        )
        return listed.stdout.split()


def body(pem: str) -> list[str]:
    """The lines of the private keys in a PEM file that hold the secret number."""
    found = []
    for part in pem.split("-----BEGIN ")[1:]:
        label, _, rest = part.partition("-----")
        if "PRIVATE KEY" in label:
            lines = rest.split("-----END")[0].split()
            assert base64.b64decode("".join(lines))
            found += [line for line in lines if len(line) > 40]
    assert found, "no private key in the file"
    return found


@pytest.fixture(scope="module")
def joined(lab: Lab) -> Iterator[Joined]:
    """A coordinator; node1 joins at a terminal through sudo, node2 with a script."""
    nodes = [lab.add(name, image="installed") for name in ("head", "node1", "node2")]
    lab.boot()
    for node in nodes:
        node.spawn("bash", "-c", WATCH)
    fleet = Fleet(nodes[0])
    fleet.workers = nodes[1:]
    joined = Joined(fleet)
    for node in fleet.workers:
        node.run("llamaforge", "worker", "install", timeout=120)
    at_the_keyboard(joined, fleet.workers[0])
    code, said = joined.join(fleet.workers[1], joined.token())
    assert code == 0, said
    fleet.until_all_wait()
    yield joined
    for node in nodes:
        node.power_cut()


def at_the_keyboard(joined: Joined, node: Node) -> None:
    """As a person does it: in a shell with a history, with sudo, the token pasted when asked."""
    make_user(node, "ada")
    node.write("/etc/sudoers.d/ada", "ada ALL=(ALL) NOPASSWD: ALL\n", mode=0o440)
    done = at_a_terminal(
        node,
        "exec bash -i",
        ("$", f"sudo llamaforge worker join {joined.fleet.address}\n"),
        ("oken", joined.token() + "\n"),
        ("$ ", "history -a; exit\n"),
        user="ada",
    )
    assert done.returncode == 0, done.stdout
    assert joined.tokens[0] not in done.stdout, "the token was shown on the terminal"
    assert "worker join" in node.read("/home/ada/.bash_history")


def sightings(node: Node, secrets: list[str]) -> str:
    """Where on a machine any of the secrets stands that somebody else might look."""
    node.write("/root/secrets", "\n".join(secrets) + "\n", mode=0o600)
    done = node.shell(
        "cd /; f=/root/secrets\n"
        f"grep -lF -f $f {SEEN} /root/.bash_history /home/*/.bash_history 2>/dev/null\n"
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'"
        " | grep -F -f $f | sed 's/^.*$/a process/'\n"
        "journalctl --no-pager -o export | grep -aqF -f $f && echo the journal\n"
        "systemctl show 'llamaforge-*' | grep -qF -f $f && echo the properties of a unit\n"
        "find /var/log -type f -print0 | xargs -0r grep -lF -f $f\n"
        "find /var /run /etc /tmp /dev/shm -xdev -type f -perm /o=r -print0"
        " | xargs -0r grep -laF -f $f\n"
        "rm $f",
        check=False,
    )
    return done.stdout


def test_the_secrets_stand_nowhere(joined: Joined) -> None:
    secrets = joined.secrets()
    assert len(secrets) >= 2 * len(joined.tokens) + 3
    canary = joined.head
    canary.write("/var/tmp/left-lying", secrets[0])
    assert "left-lying" in sightings(canary, secrets), "the search itself finds nothing"
    canary.run("rm", "/var/tmp/left-lying")
    for node in (joined.head, *joined.machines):
        assert node.read(SEEN).count("\n") > 50, "nobody has watched"
        assert sightings(node, secrets) == "", node.name


def test_the_files_are_closed_to_everybody_else(joined: Joined) -> None:
    node, head = joined.machines[0], joined.head
    make_user(node, "eve")
    make_user(head, "eve")
    for machine, path in ((node, IDENTITY), (head, f"{STATE}/authority")):
        assert machine.run("ls", path, user="eve", check=False).returncode != 0
    modes = node.shell("stat -c '%a %U' /var/lib/llamaforge/identity/* | sort -u").stdout.split(
        "\n"
    )
    assert modes == ["600 llamaforge", ""]
    folder = node.shell("stat -c '%a %U' /var/lib/llamaforge/identity").stdout.strip()
    assert folder == "700 llamaforge"
    # Who may give orders can't look into the coordinator's folder either.
    make_user(head, "ivy", "llamaforge")
    assert head.run("llamaforge", "status", user="ivy").returncode == 0
    assert head.run("ls", STATE, user="ivy", check=False).returncode != 0


def test_no_core_dump_can_hold_a_key(joined: Joined) -> None:
    for node, unit in ((joined.head, COORDINATOR), (joined.machines[0], UNIT)):
        pid = node.run("systemctl", "show", unit, "-P", "MainPID").stdout.strip()
        limits = node.run("cat", f"/proc/{pid}/limits").stdout
        (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert line.split()[4:6] == ["0", "0"], line


def test_a_token_is_good_once(joined: Joined) -> None:
    node = joined.machines[1]
    code, said = joined.join(node, joined.tokens[0])
    assert code != 0
    assert "used" in said, said
    joined.fleet.until_all_wait()  # its identity is still the old one, and good


def identity(node: Node) -> str:
    """What the machine is to the fleet: digest of its key and certificate."""
    return node.run("sha256sum", IDENTITY).stdout.split()[0]


def told(joined: Joined, what: str) -> int:
    """How many events of that name the fleet has had."""
    lines = joined.head.run("llamaforge", "events", "--json", "-n", "1000").stdout.splitlines()
    return sum(json.loads(line).get("what") == what for line in lines)


def test_a_machine_stays_itself(joined: Joined, lab: Lab) -> None:
    """After a reboot, a reinstallation of the service, and with another address."""
    node = joined.machines[0]
    before, count = identity(node), told(joined, "joined")
    node.reboot()
    joined.fleet.until_all_wait()
    assert identity(node) == before

    node.run("llamaforge", "worker", "install", "--uninstall", timeout=60)
    node.run("llamaforge", "worker", "install", timeout=60)
    joined.fleet.until_all_wait()
    assert identity(node) == before

    other = node.address.rpartition(".")[0] + ".230"
    network = "/etc/systemd/network/10-lab.network"
    node.write(network, node.read(network).replace(node.address, other))
    node.power_cut()
    node.address = other
    node.boot()
    joined.fleet.until_all_wait()
    assert identity(node) == before
    nodes = json.loads(joined.head.run("llamaforge", "status", "--json").stdout)["nodes"]
    assert other in [one["address"] for one in nodes]
    assert told(joined, "joined") == count


def test_who_is_removed_is_refused_at_once_and_may_come_back_with_a_new_token(
    joined: Joined,
) -> None:
    node, head = joined.machines[1], joined.head
    pid = main_pid(node)
    head.run("llamaforge", "nodes", "remove", node.name, "--reason", "sold")
    node.wait_for(lambda: "removed" in status(node), seconds=5, what="it is told that it is out")
    assert main_pid(node) == pid, "a removed worker waits; it does not crash"
    assert joined.fleet.states().get(node.name) in (None, "lost")
    code, said = joined.join(node, joined.token())
    assert code == 0, said
    until_waiting(node)
    joined.fleet.until_all_wait()
