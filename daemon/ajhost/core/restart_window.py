"""Whether requesters are there: what the processes of a host know of it together, in the supervisor's ledger.

A server that ends takes its subscriptions along, a requester's inbox among them, and until that is back replies go
nowhere. It is not only for who was connected to that server: a worker that is born afterwards, or whose own server
stands, starts requests that waited here and came through the one that fell.
"""

from __future__ import annotations

import zlib

from ajhost.core.timings import RECONNECT_WINDOW_LONGEST, RECONNECT_WINDOW_SHORTEST
from ajhost.ledger.layout import Word
from ajhost.ledger.view import Ledger

_KNOWN = 1 << 32


class RestartWindow:
    """Until when they may not be back. `shared` is the supervisor's ledger; its two words are any process's to write.

    Times are seconds of the monotonic clock. What two processes write at the same moment means the same.
    """

    def __init__(self, shared: Ledger) -> None:
        self._words = shared.words

    @property
    def until(self) -> float:
        """When all of them must be back; 0 if none ever had to come back."""
        return self._words[Word.BACK_BY] / 1e9

    def open(self, now: float, away: float) -> None:
        """They have to come back as of now, after there was no server for `away` seconds."""
        by = now + min(max(away, RECONNECT_WINDOW_SHORTEST), RECONNECT_WINDOW_LONGEST)
        self._words[Word.BACK_BY] = max(self._words[Word.BACK_BY], int(by * 1e9))

    def server_seen(self, server: bytes, now: float, *, clustered: bool) -> bool:
        """A process has connected to the server with that id: whether it is not the one that the host knew before.

        Of a cluster the host may know several, and another id tells nothing.
        """
        known, found = self._words[Word.SERVER], zlib.crc32(server) | _KNOWN
        replaced = not clustered and known not in (0, found)
        if replaced:
            self.open(now, 0.0)  # first: should this process die here, whoever comes next would not notice
        self._words[Word.SERVER] = found
        return replaced

    def merge(self, shared: Ledger) -> None:
        """What an earlier start knew; the last one is to be told last."""
        words = shared.words
        self._words[Word.SERVER] = words[Word.SERVER] or self._words[Word.SERVER]
        self._words[Word.BACK_BY] = max(words[Word.BACK_BY], self._words[Word.BACK_BY])
