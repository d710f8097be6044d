"""Makes and ends the subscriptions of a connection, the queue group's and those of `nats micro`, and knows which the
server refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ajhost.adapters.nats.reply_writer import ReplyWriter
from ajhost.core.connection_table import Barred, Subscribed
from ajhost.core.server_errors import Violation


@dataclass(frozen=True, slots=True)
class Subscriptions:
    subjects: tuple[str, ...] = ()
    group: str = ""


_NOTHING = Subscriptions()


class Subscriber:
    """Subscribes at each log-in to `wanted`, and to the subjects `always` without a queue group.

    If the server refuses one of `always`, the host goes on without it.
    """

    def __init__(self, out: ReplyWriter, always: Iterable[str] = ()) -> None:
        self._out = out
        self._always, self._always_known = tuple(always), False
        self.wanted = self._known = _NOTHING
        self._sid, self._sids = 0, list[int]()
        self._refused: list[Violation] = []

    @property
    def complete(self) -> bool:
        """Whether the server has confirmed or refused all that is wanted."""
        return self._known == self.wanted

    def want(self, subjects: Iterable[str] = (), group: str = "") -> None:
        """Replaces the wanted subscriptions: none any more without arguments."""
        self.wanted = Subscriptions(tuple(subjects), group)

    def reset(self) -> None:
        """Forgets the subscriptions of a connection that has ended."""
        self._known, self._always_known = _NOTHING, False
        self._sids.clear()

    def refused(self, violation: Violation) -> bool:
        """Takes note of a subscription that the server has refused. Returns whether it was one of `wanted`."""
        matters = violation.subject not in self._always
        if matters:
            self._refused.append(violation)
        return matters

    def barred(self) -> Barred:
        """Returns the event that names what was refused."""
        subjects = list(dict.fromkeys(violation.subject for violation in self._refused if violation.subject))
        if not subjects:
            return Barred("the server allows this user no more subscriptions")
        return Barred(f"no permission to subscribe to {', '.join(subjects)}")

    async def subscribe(self) -> Subscribed | Barred | None:
        """Makes the wanted subscriptions, and ends all other ones; None when the connection ended meanwhile."""
        while True:
            wanted = self.wanted
            self._refused.clear()
            lines = [b"UNSUB %d\r\n" % sid for sid in self._sids]
            self._sids.clear()
            if not self._always_known:
                self._always_known = True
                lines += [b"SUB %b %d\r\n" % (subject.encode(), self._next_sid()) for subject in self._always]
            for subject in wanted.subjects:
                self._sids.append(self._next_sid())
                lines.append(b"SUB %b %b %d\r\n" % (subject.encode(), wanted.group.encode(), self._sid))
            self._out.command(b"".join(lines))
            if not await self._out.round_trip():
                return None
            self._known = wanted
            if wanted == self.wanted:
                return self.barred() if self._refused else Subscribed()

    def _next_sid(self) -> int:
        self._sid += 1
        return self._sid

    async def unsubscribe(self) -> None:
        """Ends the subscriptions of `wanted`. Returns when all that the server had sent for them is received."""
        self._known = _NOTHING
        self._out.command(b"".join(b"UNSUB %d\r\n" % sid for sid in self._sids))
        self._sids.clear()
        # twice: a message that another connection's reader in the server had passed to ours may follow the first PONG
        if await self._out.round_trip():
            await self._out.round_trip()
