"""What the lab promises about cables: silence, cuts between some, and rates."""

from __future__ import annotations

import time

import pytest

from lab import Lab, LabError, Node

LISTEN = """
import socket, threading

def serve(peer):
    while data := peer.recv(1 << 16):
        if data.startswith(b"ping"):
            peer.sendall(b"pong")
    peer.close()

server = socket.create_server(("", 9000))
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

SEND = """
import socket, sys, time
peer = socket.create_connection((sys.argv[1], 9000), 3)
begun = time.monotonic()
peer.sendall(bytes(int(sys.argv[2])))
peer.shutdown(socket.SHUT_WR)
peer.recv(1)
print(time.monotonic() - begun)
"""

# Says what happened to an open connection whose peer has gone silent, after 1.5 s.
HOLD = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 9000), 3)
print("connected", flush=True)
while sys.stdin.readline():
    peer.settimeout(1.5)
    try:
        peer.sendall(b"ping")
        print("heard", peer.recv(4).decode(), flush=True)
    except TimeoutError:
        print("silence", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.fixture(scope="module")
def trio(lab: Lab) -> list[Node]:
    nodes = [lab.add(name) for name in ("left", "right", "third")]
    lab.boot()
    for node in nodes:
        node.spawn("python3", "-c", LISTEN)
        node.wait_for(lambda node=node: ":9000" in node.run("ss", "-tln").stdout, 10, "it listens")
    return nodes


def reaches(one: Node, other: Node) -> bool:
    connect = f"import socket; socket.create_connection(('{other.address}', 9000), 0.7)"
    return one.run("python3", "-c", connect, check=False).returncode == 0


def test_nodes_reach_each_other_and_the_host(lab: Lab, trio: list[Node]):
    left, right, third = trio
    assert reaches(left, right)
    assert reaches(third, left)
    assert left.address.rpartition(".")[0] == lab.gateway.rpartition(".")[0]


def test_a_pulled_cable_is_silent_and_a_replugged_one_goes_on(trio: list[Node]):
    left, right, _ = trio
    holding = left.spawn("python3", "-c", HOLD, right.address, input=True)
    assert holding.stdin is not None
    assert holding.stdout is not None

    def ask() -> str:
        holding.stdin.write("\n")
        holding.stdin.flush()
        return holding.stdout.readline().strip()

    assert holding.stdout.readline() == "connected\n"
    assert ask() == "heard pong"
    right.unplug()
    assert ask() == "silence"
    assert not reaches(left, right)
    right.replug()
    right.wait_for(lambda: reaches(left, right), 10, "the cable is back")
    assert ask() == "heard pong"


def test_a_cable_stays_pulled_over_a_power_cut(lab: Lab, trio: list[Node]):
    node = lab.add("apart")
    node.unplug()
    node.boot()
    assert not reaches(node, trio[0])
    node.replug()
    node.wait_for(lambda: reaches(node, trio[0]), 10, "the cable is in")
    node.power_cut()


def test_a_partition_cuts_the_named_and_nobody_else_until_healed(lab: Lab, trio: list[Node]):
    left, right, third = trio
    lab.partition([left], [right])
    assert not reaches(left, right)
    assert not reaches(right, left)
    assert reaches(left, third)
    assert reaches(third, right)
    lab.partition([third], [right])
    assert not reaches(third, right)
    lab.heal()
    left.wait_for(lambda: reaches(left, right) and reaches(third, right), 10, "healed")


def seconds(one: Node, other: Node, size: int) -> float:
    return float(one.run("python3", "-c", SEND, other.address, str(size)).stdout)


def test_a_shaped_link_has_its_rate_in_both_directions(trio: list[Node]):
    left, right, third = trio
    size = 2_500_000
    assert seconds(left, third, size) < 0.5
    third.shape("20mbit")
    # A second at the rate, less the bucket of 256 kB.
    assert 0.7 < seconds(left, third, size) < 2.5
    assert 0.7 < seconds(third, right, size) < 2.5
    third.shape(None)
    assert seconds(left, third, size) < 0.5


def test_latency_works_or_says_that_the_kernel_lacks_it(trio: list[Node]):
    left, right, _ = trio
    try:
        left.shape(None, latency="100ms")
    except LabError as error:
        if "netem" not in str(error):
            raise
        pytest.skip(str(error))
    begun = time.monotonic()
    assert reaches(right, left)
    assert time.monotonic() - begun > 0.1
    left.shape(None)


def test_without_host_entries_a_name_takes_its_time(lab: Lab):
    node = lab.add("alone", hosts=False)
    node.boot()
    with pytest.raises(LabError, match="ran past 2 s"):
        node.run("getent", "hosts", "left", timeout=2)
    assert node.read("/etc/resolv.conf") == f"nameserver {lab.network.silent_address}\n"


def test_two_labs_live_side_by_side_and_do_not_see_each_other(lab: Lab, trio: list[Node]):
    with Lab.open() as other:
        assert other.name != lab.name
        node = other.add("left")
        node.boot()
        assert node.address != trio[0].address
        assert not reaches(node, trio[0])
    assert reaches(trio[0], trio[1])
