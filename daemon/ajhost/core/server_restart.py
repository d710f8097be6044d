"""The time after a server's restart in which requesters may not have reconnected, as all processes of a host know it.

A server that ends forgets its subscriptions, requesters' inboxes among them. A reply that is published before the
requester has reconnected reaches nobody. This concerns every worker, not only those that were connected to that server:
a request that came through it may have waited in the shared queue.
"""

from __future__ import annotations

import zlib

from ajhost.core.timings import RECONNECT_WINDOW_LONGEST, RECONNECT_WINDOW_SHORTEST
from ajhost.ledger.layout import Word
from ajhost.ledger.view import Ledger
from ajhost.protocol.server_info import ServerInfo

_KNOWN = 1 << 32
_BACK_BY = int(Word.BACK_BY)
"""As a constant of its own: to read an attribute of a class costs as much as a store, and this is asked for each batch.
"""


class RestartWindow:
    """Two words of the supervisor's ledger, `shared`, which any process may write. Times are monotonic seconds."""

    def __init__(self, shared: Ledger) -> None:
        self._words = shared.words

    @property
    def until(self) -> float:
        """When every requester must have reconnected; 0 if none ever had to."""
        return self._words[Word.BACK_BY] / 1e9

    @property
    def opened(self) -> float:
        """When requesters last had to reconnect."""
        return self._words[Word.WINDOW_OPENED] / 1e9

    def is_open(self, now: float) -> bool:
        """Whether requesters may not be back. A moment that no window has is a stray write's."""
        until = self._words[_BACK_BY]
        if not until:  # on most hosts no server was ever restarted
            return False
        # twice, since another process may have noticed the restart later
        return now < until / 1e9 <= now + 2 * RECONNECT_WINDOW_LONGEST

    def open(self, now: float, away: float) -> None:
        """Requesters have to reconnect from now on, after there was no server for `away` seconds.

        Each process of the host says so of the same restart as it finds the server again. What was asked since the
        first one did came through the new server.
        """
        same = self.is_open(now) and now - away <= self.opened
        by = now + min(max(away, RECONNECT_WINDOW_SHORTEST), RECONNECT_WINDOW_LONGEST)
        known = self._words[Word.BACK_BY] if self.is_open(now) else 0
        self._words[Word.BACK_BY] = max(known, int(by * 1e9))
        if not same:
            self._words[Word.WINDOW_OPENED] = max(self._words[Word.WINDOW_OPENED], int(now * 1e9))

    def asked_before(self, now: float) -> float:
        """Answers to what came before this moment may go nowhere; 0 while all requesters are back.

        Who asks on the new server is there to hear the answer.
        """
        return self.opened if self.is_open(now) else 0.0

    def server_seen(self, server: bytes, now: float, *, clustered: bool) -> bool:
        """A process has connected to the server with this id. Returns whether that replaces the server known before.

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
        """Takes what an earlier start knew. Call it for each start, the latest one last."""
        words = shared.words
        self._words[Word.SERVER] = words[Word.SERVER] or self._words[Word.SERVER]
        self._words[Word.BACK_BY] = max(words[Word.BACK_BY], self._words[Word.BACK_BY])
        self._words[Word.WINDOW_OPENED] = max(words[Word.WINDOW_OPENED], self._words[Word.WINDOW_OPENED])


class KnownServer:
    """The server of one connection. `changed`: it is another than before, or the same one started anew."""

    def __init__(self, restart_window: RestartWindow) -> None:
        self._restart_window = restart_window
        self._known: str | None = None
        self._unreachable = self.changed = False

    def unreachable(self) -> None:
        """No server could be reached."""
        self._unreachable = True

    def left_on_purpose(self) -> None:
        """This process leaves the server, which serves others still: no requester has to come back for that."""
        self._known = None

    def greeted_by(self, info: ServerInfo, now: float) -> None:
        """A server has greeted us."""
        found = info.server_id
        replaced = self._restart_window.server_seen(found.encode(), now, clustered=info.clustered)
        self.changed = self._unreachable or replaced or self._known not in (None, found)
        self._known, self._unreachable = found, False
