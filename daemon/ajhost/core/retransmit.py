"""Retransmission of replies: each is kept until the server's PONG confirms it.

After a server's restart they are sent again with growing pauses, until requesters had time to reconnect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

from ajhost.core.server_restart import RestartWindow
from ajhost.core.timings import CONFIRMED_KEPT, REPEAT_PAUSES

_KEPT_BYTES = 8 << 20
"""Limit in bytes for unconfirmed replies, and for those that are repeated. The oldest are dropped first."""
_SETTLED_BYTES = 1 << 17
"""The same for confirmed replies, `CONFIRMED_KEPT` after their PONG: enough for about a thousand of them."""

Timed = tuple[float, bytes]
"""A moment (s), and replies: when they were confirmed, or when they are due."""
Batch = tuple[bytes, list[int]]
"""Replies that were sent together, and their ledger entries, which are held until the server has confirmed them."""


class RetransmitBuffer:
    """The replies that were handed to the kernel. Times are monotonic seconds.

    A second answer is harmless (the router's inbox is one-shot and unique), a missing one is not.
    """

    def __init__(self, restart_window: RestartWindow) -> None:
        self._restart_window = restart_window
        self._window_seen = restart_window.opened
        """When the restart window began for which what was sent before is being repeated already."""
        self._mark = 0
        self.unasked = 0
        """How many entries were sent since the server was last asked with a PING."""
        self._unconfirmed: deque[tuple[int, bytes, list[int], float]] = deque()
        """The mark with which the server is asked, replies, their entries, and when they were sent."""
        self._held: list[int] = []
        self._settled: deque[tuple[float, bytes, float]] = deque()
        """When the server confirmed them, replies, and when they were sent."""
        self._size = self._settled_size = 0
        self._repeats: tuple[deque[Timed], ...] = tuple(deque() for _ in REPEAT_PAUSES)
        self._repeated_size = 0

    @property
    def unconfirmed(self) -> bool:
        """Whether the server has not confirmed everything that was sent."""
        return bool(self._unconfirmed)

    @property
    def repeating(self) -> bool:
        """Whether replies are still repeated, since their requesters may not have reconnected."""
        return any(self._repeats)

    @property
    def held(self) -> int:
        """How many entries of confirmed replies are held, since their requesters may not have reconnected."""
        return len(self._held)

    def awaits_requesters(self, now: float) -> bool:
        """Whether requesters may not have reconnected: an answer that is given now must be able to be repeated."""
        return self._restart_window.is_open(now)

    @property
    def entries(self) -> Iterator[int]:
        """The ledger entries of replies that the server has not confirmed."""
        return chain.from_iterable(entries for _, _, entries, _ in self._unconfirmed)

    def sent(self, data: bytes, entries: list[int], now: float, repeated: bytes | None = None) -> list[int]:
        """Records replies that the kernel has taken. Returns the entries of older ones that are dropped for room.

        `repeated`: those whose requesters may not be back; None for all.
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
        if repeated and self.awaits_requesters(now):
            self._repeat(0, repeated, now)
        return dropped

    def next_mark(self) -> int | None:
        """The mark for the next PING, whose PONG confirms all that was sent; None if that was asked already."""
        if not self._unconfirmed or self._unconfirmed[-1][0] != self._mark:
            return None
        self.unasked = 0
        self._mark += 1
        return self._mark - 1

    def confirmed(self, mark: int, now: float) -> list[int]:
        """The PONG for `mark` has come. Returns the entries that need not be held any more."""
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
        if self.awaits_requesters(now):
            self._held += found
            return []
        return found

    def refused(self, is_its: Callable[[int], bool], subject: bytes) -> tuple[int, bytes] | None:
        """The server has read a reply, and did not take it: its entry, which is held no more, and its batch.

        The server says so before the PONG that would confirm the batch.
        """
        for _, data, entries, _ in self._unconfirmed:
            if subject in data:
                for index in filter(is_its, entries):
                    entries.remove(index)
                    return index, data
        return None

    def release_due(self, now: float) -> list[int]:
        """The held entries, once requesters must have reconnected."""
        return [] if self.awaits_requesters(now) else self.release_held()

    def release_held(self) -> list[int]:
        """The entries of confirmed replies, whether requesters have reconnected or not."""
        found, self._held = self._held, []
        return found

    def release_oldest(self, *, last: bool) -> list[int]:
        """Gives up waiting for PONGs, so that entries can be reused.

        Keeps the newest batch unless `last`: a part of it may still be in this process's buffer.
        """
        found = self.release_held()
        for _, _, entries, _ in list(self._unconfirmed)[: None if last else -1]:
            found += entries
            entries.clear()
        return found

    def reconnected(self, now: float, away: float | None) -> list[Batch]:
        """A new connection is there. Returns the batches that are sent again first.

        `away`: for how long there was no server, if requesters have to reconnect as well; None if it is the server of
        before, which still has their subscriptions.
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
        """Changes what is repeated: the present server takes less than the one of before."""
        for queue in self._repeats:
            for index, (moment, data) in enumerate(queue):
                changed = change(data)
                self._repeated_size += len(changed) - len(data)
                queue[index] = moment, changed

    def due(self, now: float) -> list[bytes]:
        """The replies that are to be repeated now. Call it a few times a second: it also forgets old ones."""
        self._forget(now)
        self._repeat_for_new_window(now)
        found: list[bytes] = []
        for step, queue in enumerate(self._repeats):
            while queue and queue[0][0] <= now:
                data = queue.popleft()[1]
                self._repeated_size -= len(data)
                found.append(data)
                if step + 1 < len(REPEAT_PAUSES) and self.awaits_requesters(now):
                    self._repeat(step + 1, data, now)
        return found

    def _repeat_for_new_window(self, now: float) -> None:
        """Another process found that requesters have to reconnect: what was just sent may have reached nobody."""
        if self._restart_window.opened > self._window_seen and self._restart_window.is_open(now):
            self._window_seen = self._restart_window.opened
            opened = self._restart_window.asked_before(now)
            sent = [
                *((data, at) for _, data, at in self._settled),
                *((data, at) for _, data, _, at in self._unconfirmed),
            ]
            for data, at in sent:
                if at < opened:
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
