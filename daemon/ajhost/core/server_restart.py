"""The restart window: the time after a server's restart, 10 to 60 s, in which requesters may not have reconnected.
Decides whether a server is another one than before or was restarted: by its id, or because none was reachable.

A server that ends forgets its subscriptions, requesters' inboxes among them. A reply that is published before the
requester has reconnected is lost. So all processes of a host share the window: a worker that was not connected to that
server may have taken a request that came through it from the shared queue.
"""

from __future__ import annotations

import zlib

from ajhost.core.timings import RECONNECT_WINDOW_LONGEST, RECONNECT_WINDOW_SHORTEST
from ajhost.ledger.layout import Word
from ajhost.ledger.view import Ledger
from ajhost.protocol.server_info import ServerInfo

_KNOWN = 1 << 32
_BACK_BY = int(Word.BACK_BY)
"""A constant of its own, since reading a class attribute costs as much as a store, and each batch reads this."""


class RestartWindow:
    """The window in words of the supervisor's ledger, `shared`, which any process may write. Monotonic seconds."""

    def __init__(self, shared: Ledger) -> None:
        self._words = shared.words

    @property
    def until(self) -> float:
        """Returns when every requester has had time to reconnect; 0 if none ever had to."""
        return self._words[Word.BACK_BY] / 1e9

    @property
    def opened(self) -> float:
        """Returns when requesters last had to reconnect; 0: never."""
        return self._words[Word.WINDOW_OPENED] / 1e9

    def is_open(self, now: float) -> bool:
        """Whether requesters may not have reconnected. An end beyond the longest window is a stray write's."""
        until = self._words[_BACK_BY]
        if not until:  # on most hosts no server was ever restarted
            return False
        # twice, since another process may have noticed the restart later
        return now < until / 1e9 <= now + 2 * RECONNECT_WINDOW_LONGEST

    def open(self, now: float, away: float) -> None:
        """Opens the window, or extends it: requesters have to reconnect after `away` seconds without a server.

        Each process of the host calls this for the same restart when it has reconnected. Only the first call for a
        restart sets `opened`: later requests came through the new server.
        """
        same = self.is_open(now) and now - away <= self.opened
        by = now + min(max(away, RECONNECT_WINDOW_SHORTEST), RECONNECT_WINDOW_LONGEST)
        known = self._words[Word.BACK_BY] if self.is_open(now) else 0
        self._words[Word.BACK_BY] = max(known, int(by * 1e9))
        if not same:
            self._words[Word.WINDOW_OPENED] = max(self._words[Word.WINDOW_OPENED], int(now * 1e9))

    def asked_before(self, now: float) -> float:
        """Returns the time before which a request came whose reply may be lost; 0 if all requesters are back.

        A requester that asks through the new server has reconnected.
        """
        return self.opened if self.is_open(now) else 0.0

    def server_seen(self, server: bytes, now: float, *, clustered: bool) -> bool:
        """Records the server to which this process has connected. Returns whether it replaces the known server.

        In a cluster another id does not mean a restart.
        """
        known, found = self._words[Word.SERVER], zlib.crc32(server) | _KNOWN
        replaced = not clustered and known not in (0, found)
        if replaced:
            # before SERVER: if this process dies in between, the next one to connect still sees another id
            self.open(now, 0.0)
        self._words[Word.SERVER] = found
        return replaced

    def merge(self, shared: Ledger) -> None:
        """Takes the words of an earlier start. Call it for each earlier start, the latest one last."""
        words = shared.words
        self._words[Word.SERVER] = words[Word.SERVER] or self._words[Word.SERVER]
        self._words[Word.BACK_BY] = max(words[Word.BACK_BY], self._words[Word.BACK_BY])
        self._words[Word.WINDOW_OPENED] = max(words[Word.WINDOW_OPENED], self._words[Word.WINDOW_OPENED])


class KnownServer:
    """The server of one process's connection. `changed`: it is another one than before, or was restarted."""

    def __init__(self, restart_window: RestartWindow) -> None:
        self._restart_window = restart_window
        self._known: str | None = None
        self._unreachable = self.changed = False

    def unreachable(self) -> None:
        """Takes note that no server could be reached."""
        self._unreachable = True

    def left_on_purpose(self) -> None:
        """Takes note that this process leaves a server that still runs: no requester has to reconnect for that."""
        self._known = None

    def greeted_by(self, info: ServerInfo, now: float) -> None:
        """Takes the INFO of a server that this process has reached."""
        found = info.server_id
        replaced = self._restart_window.server_seen(found.encode(), now, clustered=info.clustered)
        self.changed = self._unreachable or replaced or self._known not in (None, found)
        self._known, self._unreachable = found, False
