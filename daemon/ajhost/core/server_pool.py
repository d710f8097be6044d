"""The servers of a connection: chooses which one to try next; remembers the addresses of its name, and orders them.
Keeps those that a server has named in its INFO (`nats.discover`): at most 32, each for ten minutes, behind the
configured ones, which each process shuffles, so that dead addresses keep none of those from being tried.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from random import Random

from ajhost.core.timings import DISCOVERED_FORGOTTEN

MOST_DISCOVERED = 32
"""How many discovered servers are kept; a super-cluster names some dozens at most."""
MOST_ADDRESSES = 16
"""Addresses of one name that are tried at once."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a server: `ip` is a literal, `scope` the index of an interface for link-local IPv6."""

    ip: str
    port: int
    scope: int = 0

    @property
    def is_v6(self) -> bool:
        return ":" in self.ip

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.is_v6 else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Server:
    """One server: its address, the user if its URL names one, and the name that its certificate must have."""

    host: str
    port: int = 4222
    tls: bool = False
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    tls_name: str = ""
    discovered: bool = False

    @property
    def certificate_name(self) -> str:
        """Returns the host name against which the server's certificate is verified."""
        return self.tls_name or self.host

    @property
    def place(self) -> tuple[str, int]:
        """Returns what identifies a server."""
        return self.host.lower(), self.port

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def literal(host: str, port: int) -> Address | None:
    """Returns the address that `host` is as a literal; None for a name."""
    plain, _, scope = host.partition("%")
    try:
        ipaddress.ip_address(plain)
    except ValueError:
        return None
    return Address(plain, port, int(scope)) if scope.isdigit() else None if scope else Address(plain, port)


def in_order(addresses: Iterable[Address], last_good: Address | None) -> tuple[Address, ...]:
    """Returns addresses in the order to try them: the last good one, then the families in turns (RFC 8305)."""
    found = list(dict.fromkeys(addresses))
    if not found:
        return ()
    first = [a for a in found if a.is_v6 == found[0].is_v6]
    other = [a for a in found if a.is_v6 != found[0].is_v6]
    mixed = [address for pair in zip_longest(first, other) for address in pair if address is not None]
    if last_good in mixed:
        mixed.remove(last_good)
        mixed.insert(0, last_good)
    return tuple(mixed[:MOST_ADDRESSES])


@dataclass(slots=True)
class _Entry:
    """A server, when it may be tried and was last tried, and when another server last named it.

    `good`: the address that last answered; `addresses`: those of its name as they were last resolved.
    """

    server: Server
    failures: int = 0
    retry_at: float = 0.0
    tried_at: float = -1.0
    told_at: float = 0.0
    good: Address | None = None
    addresses: tuple[Address, ...] = ()


class ServerPool:
    """The servers that a process may connect to. Times are seconds of the monotonic clock."""

    def __init__(self, servers: Iterable[Server], rng: Random, *, discover: bool = True) -> None:
        self._rng = rng
        self._discover = discover
        self._configured: list[_Entry] = []
        self._discovered: list[_Entry] = []
        self._lost_at = 0.0
        self.replace(servers)

    def replace(self, servers: Iterable[Server]) -> None:
        """Takes other configured servers, and forgets those that were discovered through the old ones."""
        known = {entry.server: entry for entry in self._configured}
        # each process shuffles them, so that the processes of a host spread over the servers
        unique = list(dict.fromkeys(servers))
        self._rng.shuffle(unique)
        self._configured = [known.get(server) or _Entry(server) for server in unique]
        self._discovered.clear()

    @property
    def servers(self) -> tuple[Server, ...]:
        """Returns all known servers, the configured ones first."""
        return tuple(entry.server for entry in self._entries)

    def discover(self, urls: Iterable[str], told_by: Server, now: float) -> None:
        """Replaces the discovered servers by those that `told_by` names, as HOST:PORT.

        They are reached as `told_by` was: with TLS or without, as the same user, and under its certificate's name if
        they are named by an address.
        """
        if not self._discover:
            return
        known = {entry.server.place: entry for entry in self._discovered}
        configured = {entry.server.place for entry in self._configured}
        found: dict[tuple[str, int], _Entry] = {}
        for url in urls:
            server = _discovered(url, told_by)
            if server is None or server.place in configured or server.place in found:
                continue
            entry = known.get(server.place) or _Entry(server)
            entry.server, entry.told_at = server, now
            found[server.place] = entry
            if len(found) == MOST_DISCOVERED:
                break
        self._discovered = list(found.values())

    def lost(self, now: float) -> None:
        """Takes note that a connection ended: every configured server is tried before a discovered one."""
        self._lost_at = now
        for entry in self._discovered:
            entry.told_at = now

    def next(self, now: float) -> tuple[Server, float]:
        """Returns the server to try next, and when, which may be in the past."""
        self._expire(now)
        untried = [entry for entry in self._configured if entry.tried_at <= self._lost_at]
        if untried:
            best = min(untried, key=lambda e: (max(e.retry_at, now), e.tried_at))
            return best.server, best.retry_at
        for entries in (self._configured, self._discovered):
            ready = [entry for entry in entries if entry.retry_at <= now]
            if ready:
                return min(ready, key=lambda e: e.tried_at).server, now
        best = min(self._entries, key=lambda e: e.retry_at)
        return best.server, best.retry_at

    def others(self, server: Server, now: float) -> list[Server]:
        """Returns every server but this one, those that were tried longest ago first."""
        self._expire(now)
        entries = sorted(self._entries, key=lambda e: e.tried_at)
        return [e.server for e in entries if e.server.place != server.place]

    def tried(self, server: Server, now: float) -> None:
        """Takes note that an attempt at this server begins."""
        self._entry(server).tried_at = now

    def resolved(self, server: Server, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        """Remembers the addresses of a server's name, and returns them in the order to try them."""
        entry = self._entry(server)
        entry.addresses = addresses
        return in_order(addresses, entry.good)

    def remembered(self, server: Server) -> tuple[Address, ...]:
        """Returns the addresses of the last look-up of a server's name, in the order to try them."""
        entry = self._entry(server)
        return in_order(entry.addresses, entry.good)

    def reached(self, server: Server, address: Address) -> None:
        """Takes note that this address has answered."""
        self._entry(server).good = address

    def failed(self, server: Server, pause: float, now: float) -> None:
        """Delays the next attempt at this server by `pause` seconds."""
        self._entry(server).retry_at = now + pause

    def failures(self, server: Server) -> int:
        """Counts one more failure in a row of this server. Returns how many there are now."""
        entry = self._entry(server)
        entry.failures += 1
        return entry.failures

    def proven(self, server: Server) -> None:
        """Forgets the failures of a server, since a connection to it has lasted."""
        self._entry(server).failures = 0

    def forget_pauses(self) -> None:
        for entry in self._entries:
            entry.retry_at = 0.0

    @property
    def _entries(self) -> list[_Entry]:
        return [*self._configured, *self._discovered]

    def _entry(self, server: Server) -> _Entry:
        """Returns the entry of a server; a new one, which nobody keeps, for a server that is no longer in the pool."""
        return next((entry for entry in self._entries if entry.server.place == server.place), None) or _Entry(server)

    def _expire(self, now: float) -> None:
        self._discovered = [e for e in self._discovered if now - e.told_at <= DISCOVERED_FORGOTTEN]


def _discovered(url: str, told_by: Server) -> Server | None:
    host, separator, port = url.rpartition(":")
    if not separator or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    if not host or any(c.isspace() or not c.isprintable() for c in host) or len(host) > 255:
        return None
    address = literal(host, 1)
    if address is not None and ipaddress.ip_address(address.ip).is_unspecified:
        return None  # 0.0.0.0 or [::] is where that server listens; to connect there would reach this machine
    return Server(
        host,
        int(port),
        tls=told_by.tls,
        user=told_by.user,
        password=told_by.password,
        token=told_by.token,
        tls_name="" if address is None else told_by.certificate_name,
        discovered=True,
    )
