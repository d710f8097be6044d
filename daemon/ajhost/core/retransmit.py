"""Retransmission of replies: a process keeps each until the server's PONG confirms it, and sends it again after a
reconnect; after a server's restart with growing pauses, until requesters had time to reconnect
(`core/server_restart.py`). Decides when a reply's ledger entry may be used again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

from ajhost.core.server_restart import RestartWindow
from ajhost.core.timings import CONFIRMED_KEPT, REPEAT_PAUSES

_KEPT_BYTES = 8 << 20
"""Limit in bytes for unconfirmed replies, and another one for replies to repeat. The oldest are dropped first."""
_SETTLED_BYTES = 1 << 17
"""Limit in bytes for confirmed replies, which are kept for `CONFIRMED_KEPT`: about a thousand of them fit."""

Timed = tuple[float, bytes]
"""Replies, and when they are due (s)."""
Batch = tuple[bytes, list[int]]
"""Replies that were sent together, and their ledger entries, which stay in use until the server has confirmed them."""


class RetransmitBuffer:
    """The replies that the kernel has taken and that may have to be sent again. Times are monotonic seconds.

    A second answer is harmless, since the router's inbox is one-shot and unique. A missing one is not.
    """

    def __init__(self, restart_window: RestartWindow) -> None:
        self._restart_window = restart_window
        self._window_seen = restart_window.opened
        """The beginning of the last restart window whose earlier replies are being repeated already."""
        self._mark = 0
        self.unasked = 0
        """How many entries were sent since the last PING."""
        self._unconfirmed: deque[tuple[int, bytes, list[int], float]] = deque()
        """The mark of the PING that asks for them, the replies, their entries, and when they were sent."""
        self._held: list[int] = []
        self._settled: deque[tuple[float, bytes, float]] = deque()
        """When the server confirmed them, the replies, and when they were sent."""
        self._size = self._settled_size = 0
        self._repeats: tuple[deque[Timed], ...] = tuple(deque() for _ in REPEAT_PAUSES)
        self._repeated_size = 0

    @property
    def unconfirmed(self) -> bool:
        """Whether the server has not confirmed every reply yet."""
        return bool(self._unconfirmed)

    @property
    def repeating(self) -> bool:
        """Whether replies are to be sent again, since their requesters may not have reconnected."""
        return any(self._repeats)

    @property
    def held(self) -> int:
        """Returns how many entries of confirmed replies are held, since requesters may not have reconnected."""
        return len(self._held)

    @property
    def entries(self) -> Iterator[int]:
        """Returns the ledger entries of replies that the server has not confirmed."""
        return chain.from_iterable(entries for _, _, entries, _ in self._unconfirmed)

    def sent(self, data: bytes, entries: list[int], now: float, repeated: bytes | None = None) -> list[int]:
        """Records replies that the kernel has taken. Returns the entries of older ones, which it drops for room.

        `repeated`: the replies whose requesters may not have reconnected; None: all of them.
        """
        self._unconfirmed.append((self._mark, data, list(entries), now))
        self.unasked += len(entries)
        self._size += len(data)
        dropped: list[int] = []
        while self._size > _KEPT_BYTES and len(self._unconfirmed) > 1:
            _, oldest, theirs, _ = self._unconfirmed.popleft()
            self._size -= len(oldest)
            dropped += theirs
        if repeated is None:
            repeated = data
        if repeated and self._restart_window.is_open(now):
            self._repeat(0, repeated, now)
        return dropped

    def next_mark(self) -> int | None:
        """Returns the mark for the next PING, whose PONG confirms all that was sent; None if no PING is needed."""
        if not self._unconfirmed or self._unconfirmed[-1][0] != self._mark:
            return None
        self.unasked = 0
        self._mark += 1
        return self._mark - 1

    def confirmed(self, mark: int, now: float) -> list[int]:
        """Takes the PONG for `mark`. Returns the entries that may be freed."""
        found: list[int] = []
        unconfirmed, settled, size = self._unconfirmed, self._settled, 0
        while unconfirmed and unconfirmed[0][0] <= mark:
            _, data, entries, sent_at = unconfirmed.popleft()
            size += len(data)
            settled.append((now, data, sent_at))
            found += entries
        self._size -= size
        size += self._settled_size
        while size > _SETTLED_BYTES:
            size -= len(settled.popleft()[1])
        self._settled_size = size
        if self._restart_window.is_open(now):
            self._held += found
            return []
        return found

    def refused(self, is_its: Callable[[int], bool], subject: bytes) -> tuple[int, bytes] | None:
        """Takes the refusal of a reply to `subject`. Returns its entry, which is no longer held, and its batch.

        The server sends its refusal before the PONG that would confirm the batch.
        """
        for _, data, entries, _ in self._unconfirmed:
            if subject in data:
                for index in filter(is_its, entries):
                    entries.remove(index)
                    return index, data
        return None

    def release_due(self, now: float) -> list[int]:
        """Gives up the held entries if requesters have had time to reconnect, and returns them."""
        return [] if self._restart_window.is_open(now) else self.release_held()

    def release_held(self) -> list[int]:
        """Gives up the entries of confirmed replies, and returns them."""
        found, self._held = self._held, []
        return found

    def release_oldest(self, *, last: bool) -> list[int]:
        """Gives up entries without waiting for PONGs, so that they can be reused, and returns them.

        Keeps the newest batch unless `last`: a part of it may still be in this process's buffer.
        """
        found = self.release_held()
        for _, _, entries, _ in list(self._unconfirmed)[: None if last else -1]:
            found += entries
            entries.clear()
        return found

    def reconnected(self, now: float, away: float | None) -> list[Batch]:
        """Takes a new connection. Returns the batches to send again before any other reply.

        `away`: seconds without a server, if requesters have to reconnect as well; None if it is the same server, which
        still has their subscriptions.
        """
        unsure = [(data, entries) for _, data, entries, _ in self._unconfirmed]
        if away is not None:
            self._restart_window.open(now, away)
            self._window_seen = self._restart_window.opened
            self._forget(now - away)
            unsure[:0] = [(data, []) for _, data, _ in self._settled]
        self._unconfirmed.clear()
        self._settled.clear()
        self._size = self._settled_size = 0
        return unsure

    def rewrite(self, change: Callable[[bytes], bytes]) -> None:
        """Changes the replies to repeat, for a server whose `max_payload` is below the previous one's."""
        for queue in self._repeats:
            for index, (moment, data) in enumerate(queue):
                changed = change(data)
                self._repeated_size += len(changed) - len(data)
                queue[index] = moment, changed

    def due(self, now: float) -> list[bytes]:
        """Returns the replies to send again now. Call it a few times a second: it also forgets old ones."""
        self._forget(now)
        self._repeat_for_new_window(now)
        found: list[bytes] = []
        for step, queue in enumerate(self._repeats):
            while queue and queue[0][0] <= now:
                data = queue.popleft()[1]
                self._repeated_size -= len(data)
                found.append(data)
                if step + 1 < len(REPEAT_PAUSES) and self._restart_window.is_open(now):
                    self._repeat(step + 1, data, now)
        return found

    def _repeat_for_new_window(self, now: float) -> None:
        """Repeats recent replies if another process has opened a restart window: they may have reached no requester."""
        if self._restart_window.opened > self._window_seen and self._restart_window.is_open(now):
            self._window_seen = self._restart_window.opened
            settled = ((data, at) for _, data, at in self._settled)
            unconfirmed = ((data, at) for _, data, _, at in self._unconfirmed)
            for data, at in chain(settled, unconfirmed):
                if at < self._window_seen:
                    self._repeat(0, data, now)

    def _forget(self, now: float) -> None:
        while self._settled and self._settled[0][0] < now - CONFIRMED_KEPT:
            self._settled_size -= len(self._settled.popleft()[1])

    def _repeat(self, step: int, data: bytes, now: float) -> None:
        self._repeats[step].append((now + REPEAT_PAUSES[step], data))
        self._repeated_size += len(data)
        while self._repeated_size > _KEPT_BYTES:
            eldest = next(queue for queue in reversed(self._repeats) if queue)
            self._repeated_size -= len(eldest.popleft()[1])
