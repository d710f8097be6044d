"""Replies that may have to go out again: until the server has them, and past its restart until requesters are back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain

from ajhost.core.restart_window import RestartWindow
from ajhost.core.timings import CONFIRMED_KEPT, REPEAT_PAUSES

_KEPT_BYTES = 8 << 20
"""Bytes that are kept of what is unconfirmed, and of what is repeated; the oldest go first."""
_SETTLED_BYTES = 1 << 17
"""The same for what is settled: a second of a thousand replies, and no more memory in any worker."""

Timed = tuple[float, bytes]
"""A moment (s) and the replies that belong to it."""
Batch = tuple[bytes, list[int]]
"""Replies that left together, and their ledger entries, which are held until the server has them."""


class RetransmitBuffer:
    """Keeps what was handed to the kernel. Times are seconds of the monotonic clock.

    A second answer is harmless (the router's inbox is one-shot and unique), a missing one is not.
    """

    def __init__(self, restart_window: RestartWindow) -> None:
        self._restart_window = restart_window
        self._window_seen = restart_window.until
        """Until when requesters may not be back, as far as what was sent before has been repeated for it."""
        self._mark = 0
        self.unasked = 0
        """Entries of what was sent since the server was last asked."""
        self._unconfirmed: deque[tuple[int, bytes, list[int]]] = deque()
        self._held: list[int] = []
        self._settled: deque[Timed] = deque()
        self._size = self._settled_size = 0
        self._repeats: tuple[deque[Timed], ...] = tuple(deque() for _ in REPEAT_PAUSES)
        self._repeated_size = 0

    @property
    def unconfirmed(self) -> bool:
        """Whether the server may not have everything that was sent."""
        return bool(self._unconfirmed)

    @property
    def repeating(self) -> bool:
        """Whether requesters may not be back yet for everything that was sent."""
        return any(self._repeats)

    @property
    def held(self) -> int:
        """How many entries are held only because requesters may not be back yet."""
        return len(self._held)

    def awaits_requesters(self, now: float) -> bool:
        """Whether requesters may not be back yet: who answers must be able to answer again, whatever dies."""
        return now < self._restart_window.until

    @property
    def entries(self) -> Iterator[int]:
        """The ledger entries of what the server may not have."""
        return chain.from_iterable(entries for _, _, entries in self._unconfirmed)

    def sent(self, data: bytes, entries: list[int], now: float) -> list[int]:
        """Replies were handed to the kernel; entries of older ones for which there is no room any more."""
        self._unconfirmed.append((self._mark, data, list(entries)))
        self.unasked += len(entries)
        self._size += len(data)
        dropped: list[int] = []
        while self._size > _KEPT_BYTES and len(self._unconfirmed) > 1:
            _, oldest, theirs = self._unconfirmed.popleft()
            self._size -= len(oldest)
            dropped += theirs
        if self.awaits_requesters(now):
            self._repeat(0, data, now)
        return dropped

    def next_mark(self) -> int | None:
        """The mark with which to ask the server whether it has all that was sent, None if that was asked already."""
        if not self._unconfirmed or self._unconfirmed[-1][0] != self._mark:
            return None
        self.unasked = 0
        self._mark += 1
        return self._mark - 1

    def confirmed(self, mark: int, now: float) -> list[int]:
        """The server has what was sent before it was asked with `mark`: the entries that need not be held any more."""
        found: list[int] = []
        while self._unconfirmed and self._unconfirmed[0][0] <= mark:
            _, data, entries = self._unconfirmed.popleft()
            self._size -= len(data)
            self._settled.append((now, data))
            self._settled_size += len(data)
            found += entries
        while self._settled_size > _SETTLED_BYTES:
            self._settled_size -= len(self._settled.popleft()[1])
        if self.awaits_requesters(now):
            self._held += found
            return []
        return found

    def release_due(self, now: float) -> list[int]:
        """The entries that were held until requesters were back, once they must be."""
        return [] if self.awaits_requesters(now) else self.release_held()

    def release_held(self) -> list[int]:
        """The entries of what the server has, requesters or not."""
        found, self._held = self._held, []
        return found

    def release_oldest(self, *, last: bool) -> list[int]:
        """The entries that need not be held when there are too few; of the batch sent `last` only if asked for."""
        found = self.release_held()
        for _, _, entries in list(self._unconfirmed)[: None if last else -1]:
            found += entries
            entries.clear()
        return found

    def reconnected(self, now: float, away: float | None) -> list[Batch]:
        """A new connection: what goes out again first.

        `away`: for how long there was no server, when requesters have to come back as well; None when the server is the
        one of before, which knows them still.
        """
        unsure = [(data, entries) for _, data, entries in self._unconfirmed]
        if away is not None:
            self._restart_window.open(now, away)
            self._window_seen = self._restart_window.until
            self._forget(now - away)
            unsure[:0] = [(data, []) for _, data in self._settled]
        self._unconfirmed.clear()
        self._settled.clear()
        self._size = self._settled_size = 0
        return unsure

    def due(self, now: float) -> list[bytes]:
        """What is to be repeated now. Call it every now and then: it also forgets what is settled for good."""
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
        """Somebody else found that requesters have to come back: what has just left may have gone nowhere."""
        if self._restart_window.until > self._window_seen:
            self._window_seen = self._restart_window.until
            for data in [*(data for _, data in self._settled), *(data for _, data, _ in self._unconfirmed)]:
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
