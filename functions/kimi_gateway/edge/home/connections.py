"""Bounds on connections, and the client address behind trusted proxies."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from kimi_gateway.edge.addresses import block, parsed
from kimi_gateway.edge.home.bodies import Largest

MOST_OF_HEADS = 32 * 2**20  # bytes of all large heads that are incomplete
ARENA = 256 * 1024  # bytes of one read
FEW = 2  # bodies that arrive at a time and get all of it
TURN = FEW * ARENA  # bytes that all bodies together may bring in a turn of the loop
LEAST_READ = 4 * 1024
UNSENT = 128 * 1024  # bytes of an answer that a socket takes before the client's window has room for them
LOOKED_AT = 64  # connections with a key that are searched for an idle one
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Connection(Protocol):
    @property
    def idle(self) -> bool: ...

    def abort(self) -> None: ...


class Connections:
    """The open connections of a process: `most` in total, a quarter of them without a valid key, and
    `per_address` of those from one address. One too many closes an idle one, one whose body has not arrived
    yet, of the account that has most of these, or the oldest keyless one. So new clients always get in."""

    def __init__(self, most: int, per_address: int) -> None:
        self._most = max(most, 1)
        self._keyless_most = max(most // 4, 1)
        self._per_address = per_address
        self._keyless: OrderedDict[Connection, str] = OrderedDict()  # with the client's address
        self._keyed: OrderedDict[Connection, None] = OrderedDict()
        self._of: dict[str, OrderedDict[Connection, None]] = {}
        self._waiting: dict[str, OrderedDict[Connection, None]] = {}  # by account, for their bodies
        self._waits: dict[Connection, str] = {}
        self._accounts = Largest[str]()  # by their waiting connections
        self._heads: OrderedDict[Connection, int] = OrderedDict()  # bytes of large incomplete heads
        self._of_heads = 0  # bytes of them all

    def __len__(self) -> int:
        return len(self._keyless) + len(self._keyed)

    @property
    def keyless(self) -> int:
        return len(self._keyless)

    def add(self, connection: Connection, address: str) -> None:
        """Add a connection that has shown no key, or none for this address. An empty address counts for
        nobody."""
        self.remove(connection)
        name = block(address)
        self._keyless[connection] = name
        if name:
            same = self._of.setdefault(name, OrderedDict())
            same[connection] = None
            if len(same) > self._per_address:
                self._end(next(iter(same)))
        if len(self._keyless) > self._keyless_most:
            self._end(next(iter(self._keyless)))
        if len(self) > self._most:
            self._end(self._idle() or self._waits_with_most() or next(iter(self._keyless)))

    def know(self, connection: Connection) -> None:
        """The connection has shown a valid key."""
        if connection in self._keyless:
            self.remove(connection)
            self._keyed[connection] = None

    def wait(self, connection: Connection, account: str | None) -> None:
        """The connection waits for a body of the account until it goes on."""
        if account and connection in self._keyed:
            self._waits[connection] = account
            same = self._waiting.setdefault(account, OrderedDict())
            same[connection] = None
            self._accounts.set(account, len(same))

    def share(self) -> int:
        """Bytes of the next read of a body. With many at a time each gets less, because other requests wait
        until all that can be read in a turn of the loop is processed."""
        return ARENA if len(self._waits) <= FEW else max(LEAST_READ, TURN // len(self._waits))

    def go_on(self, connection: Connection) -> None:
        account = self._waits.pop(connection, None)
        if account is not None:
            same = self._waiting[account]
            del same[connection]
            if same:
                self._accounts.set(account, len(same))
            else:
                del self._waiting[account]
                self._accounts.discard(account)

    def head(self, connection: Connection, size: int) -> None:
        """The connection has `size` bytes of a large head that is incomplete; 0 if there is none. If all of
        them are too many, the oldest makes room, because most heads are complete with the next read."""
        self._of_heads += size - self._heads.get(connection, 0)
        if size:
            self._heads[connection] = size
        else:
            self._heads.pop(connection, None)
        while self._of_heads > MOST_OF_HEADS:
            self._end(next(iter(self._heads)))

    def remove(self, connection: Connection) -> None:
        self.go_on(connection)
        self.head(connection, 0)
        self._keyed.pop(connection, None)
        name = self._keyless.pop(connection, "")
        if name:
            same = self._of[name]
            del same[connection]
            if not same:
                del self._of[name]

    def _end(self, connection: Connection) -> None:
        self.remove(connection)
        connection.abort()

    def _waits_with_most(self) -> Connection | None:
        account = self._accounts.first()
        return None if account is None else next(iter(self._waiting[account]))

    def _idle(self) -> Connection | None:
        """An idle connection with a key; busy ones move to the end of the queue."""
        for _ in range(min(LOOKED_AT, len(self._keyed))):
            connection = next(iter(self._keyed))
            if connection.idle:
                return connection
            self._keyed.move_to_end(connection)
        return None


class Proxies:
    """The proxies whose `X-Forwarded-For` is trusted."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: list[_Network] = [ipaddress.ip_network(each, strict=False) for each in networks]

    def __contains__(self, address: str) -> bool:
        if not self._networks:
            return False
        found = parsed(address)
        return found is not None and any(found in network for network in self._networks)

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """The last hop that is not a trusted proxy; the first hop if all are. A hop that is not an address
        ends the search at the proxy that reported it."""
        last = peer
        for hop in reversed(",".join(forwarded).rsplit(",", 32)[-32:]):
            if last not in self:
                break
            address = parsed(_bare(hop.strip()))
            if address is None:
                break
            last = str(address)
        return last


def _bare(hop: str) -> str:
    """The address without a port."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def accept(transport: asyncio.BaseTransport) -> str:
    """Bound what the kernel keeps for a client that does not read; bytes on their way are not bounded, so a
    distant client loses no speed. Returns the client's address, empty for a local socket."""
    peer, unsent = transport.get_extra_info("peername"), getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if not isinstance(peer, tuple):
        return ""
    if unsent is not None:
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, unsent, UNSENT)
    return str(peer[0])
