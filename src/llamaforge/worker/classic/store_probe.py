"""Says what listens at MASTER_ADDR:MASTER_PORT: a torchrun that waits for this node, or not.

A probe is one short connection that reads a few keys. It never counts as a node that joined and
leaves nothing behind, so it may be repeated every second for as long as a machine is on.
"""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from enum import Enum

from llamaforge.spec import classic
from llamaforge.worker.classic.store_client import NoStore, StoreClient


class Kind(str, Enum):
    """What a probe can find."""

    NOTHING = "nothing"
    """No machine, or nothing that listens on the port."""
    WAITING = "waiting"
    """A torchrun store that fewer nodes have joined than it needs."""
    CLAIMED = "claimed"
    """A waiting store that has been joined under this node rank before: never again."""
    RUNNING = "running"
    """A store that all nodes have joined: its job starts, runs or ends."""
    STALLED = "stalled"
    """As many nodes as this worker knows of have joined, and torchrun still waits."""
    OTHER_SIZE = "other_size"
    """A torchrun that began with fewer nodes than this worker's WORLD_SIZE."""
    UNCOUNTED = "uncounted"
    """A TCPStore that counts no nodes: none of torchrun's static rendezvous."""
    FOREIGN = "foreign"
    """Something else than a TCPStore."""


_DIGITS = 9  # more nodes than that are not a number of nodes


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What one probe found."""

    kind: Kind
    text: str
    """One phrase for a person, naming address and port."""


async def look(
    host: str, port: int, *, node_rank: int, world_size: int, timeout: float = 2.0
) -> Sighting:
    """Looks once at what listens on `host:port`.

    Args:
        host: MASTER_ADDR, a name or an address.
        port: MASTER_PORT.
        node_rank: the node rank under which this worker would join.
        world_size: nodes, as in WORLD_SIZE.
        timeout: seconds for each exchange with the other side.
    """
    where = f"{host}:{port}"
    try:
        async with await StoreClient.open(host, port, timeout=timeout) as store:
            return await _read(store, where, node_rank, world_size)
    except NoStore as error:
        return Sighting(kind=Kind.FOREIGN, text=await _name(error, host, port, timeout))
    except socket.gaierror as error:
        return Sighting(kind=Kind.NOTHING, text=f"the name {host} is unknown ({error.strerror})")
    except UnicodeError:  # raised by the IDNA encoding of names such as "a..b"
        return Sighting(kind=Kind.NOTHING, text=f"MASTER_ADDR {host!r} is no name of a host")
    except ConnectionRefusedError:
        return Sighting(kind=Kind.NOTHING, text=f"nothing listens on {where}")
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        return Sighting(kind=Kind.NOTHING, text=f"{where} can't be reached ({why.lower()})")


async def _read(store: StoreClient, where: str, node_rank: int, world_size: int) -> Sighting:
    count = await store.get(classic.JOINED_NODES)
    if count is None or not count.isdigit() or len(count) > _DIGITS:
        text = f"a TCPStore on {where} counts no nodes: no static rendezvous of torchrun"
        return Sighting(kind=Kind.UNCOUNTED, text=text)
    joined = f"{int(count)} of {world_size} nodes"
    arrived = await store.check([classic.AGENT_ARRIVED])
    if int(count) >= world_size and arrived:
        text = f"the torchrun on {where} has all of its nodes ({joined})"
        return Sighting(kind=Kind.RUNNING, text=text)
    if int(count) >= world_size:
        text = (
            f"the torchrun on {where} waits although {joined} have joined: is its --nnodes larger "
            f"than WORLD_SIZE, or does it use --rdzv-id?"
        )
        return Sighting(kind=Kind.STALLED, text=text)
    if arrived:
        text = f"the torchrun on {where} runs with {int(count)} nodes, WORLD_SIZE is {world_size}"
        return Sighting(kind=Kind.OTHER_SIZE, text=text)
    if await store.check([classic.claim(node_rank)]):
        text = f"torchrun waits on {where} ({joined}), but node {node_rank} has joined it before"
        return Sighting(kind=Kind.CLAIMED, text=f"{text}: start it again")
    return Sighting(kind=Kind.WAITING, text=f"torchrun waits on {where} ({joined})")


async def _name(error: NoStore, host: str, port: int, timeout: float) -> str:
    """What answers on a port that is no store's."""
    answer, closed = error.answer, error.closed
    if not answer and not closed:
        answer = await _ask_http(host, port, timeout)
    return f"no torchrun store listens on {host}:{port} but {describe(answer, closed=closed)}"


async def _ask_http(host: str, port: int, timeout: float) -> bytes:
    """The first bytes of the answer to an HTTP request: such servers wait for a whole line."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout)
    except (OSError, asyncio.TimeoutError):
        return b""
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        return await asyncio.wait_for(reader.read(512), timeout)
    except (OSError, asyncio.TimeoutError):
        return b""
    finally:
        writer.close()


def describe(answer: bytes, *, closed: bool) -> str:
    """Names a server by its first bytes, without repeating what could change between two looks."""
    if answer.startswith(b"SSH-"):
        return f"an SSH server ({_first_line(answer)})"
    if answer.startswith(b"HTTP/"):
        return f"an HTTP server ({_first_line(answer)})"
    if answer[:1] in (b"\x15", b"\x16") and answer[1:2] == b"\x03":
        return "a TLS server"
    if not answer:
        return "something that closes the connection" if closed else "something that stays silent"
    line = _first_line(answer)
    if line.isprintable() and line.isascii():
        return f"a server that says {line!r}"
    return f"a server of an unknown kind (it sent {answer[:8].hex(' ')})"


def _first_line(answer: bytes) -> str:
    return answer.splitlines()[0][:60].decode("latin-1").strip()
