"""Replies that a server does not accept: replaced by `result too large` where it takes less from this user, or less
than the server before; counted as `reply refused` where the user may not publish them.

The connection's sink is told, since it has counted another outcome than the one that the requester gets.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from ajhost.adapters.nats.interfaces import Sink
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.frames import is_plain_subject, is_size
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.reasons import FailureReason
from ajhost.protocol.reply_encoding import encode_reply, too_large

_log = logging.getLogger("ajhost.nats")
_LEAST_LIMIT = 1024
"""Bytes of payload into which any reply fits, as an error at least. A user may be allowed fewer."""
_HEADER_BEGINS = 64
"""Bytes after a subject that contain the name of the first header."""


class RefusedReplies:
    """Replaces such replies by errors. `limit`: bytes of payload and headers that the present server accepts."""

    def __init__(self, ledger: LedgerWriter, sink: Sink) -> None:
        self._ledger, self._sink = ledger, sink
        self.limit = self._largest = 0

    def set_limits(self, max_payload: int, of_all: int) -> bool:
        """Sets the present server's limits in bytes: `max_payload` for this user, `of_all` for routers and other users.

        Results are checked against `of_all` only. Returns whether such a reply may exceed `max_payload`.
        """
        self.limit, self._largest = max_payload, max(self._largest, max_payload)
        return max_payload < max(of_all, _LEAST_LIMIT)

    @property
    def takes_less(self) -> bool:
        """Whether an earlier server accepted larger replies."""
        return self.limit < self._largest

    def fit(self, data: bytes, entries: list[int]) -> bytes:
        """Returns the replies `data`, with an error in the place of each that is too large. `entries`: theirs."""
        fitting, changes = fit(data, self.limit)
        if changes:
            self._sink.before_send()  # the sink counts outcomes there: they must be counted before they are replaced
        for change in changes:
            _log.warning("the server takes less from this host: %s", change.text)
            before = _outcome_told(data, change.subject)
            index = next((i for i in entries if self._ledger.reply(i) == change.subject), None)
            if before is not None and index is not None and change.outcome is not None:
                self._sink.reply_replaced(index, before, change.outcome)
        return fitting

    def take_back(self, index: int, data: bytes, subject: bytes, why: str) -> None:
        """Tells the sink that the server has refused the reply of an entry, which was sent among `data`."""
        if (before := _outcome_told(data, subject)) is not None:
            self._sink.reply_replaced(index, before, Failed.because(FailureReason.REPLY_REFUSED, why))


class Change(NamedTuple):
    """A replaced or dropped publication, in words; for a reply also its subject, and the outcome in its place."""

    text: str
    subject: bytes = b""
    outcome: Failed | Terminated | None = None


def fit(data: bytes, max_payload: int) -> tuple[bytes, list[Change]]:
    """Returns `PUB` and `HPUB` commands such that a server with this limit accepts them, and the changes.

    A server ends the connection of a client that sends more, at each attempt. So a reply that is too large becomes
    AJ-Terminate, which tells the router why. Drops commands with an invalid subject, and bytes that are no command.
    """
    kept: list[bytes] = []
    changes: list[Change] = []
    position = 0
    while position < len(data):
        line_end = data.find(b"\r\n", position)
        words = data[position:line_end].split(b" ") if line_end >= 0 else []
        if words[:1] not in ([b"PUB"], [b"HPUB"]) or not is_size(words[-1]):
            changes.append(Change(f"{len(data) - position} bytes that are no reply are left out"))
            break
        size, end = int(words[-1]), line_end + 2 + int(words[-1]) + 2
        fields = 3 if words[0] == b"PUB" else 4
        if len(words) != fields or not is_plain_subject(words[1]):
            changes.append(Change(f"a reply to {data[position:line_end][:80]!r} is left out"))
        elif size > max_payload:
            text = too_large(size, max_payload)
            outcome = Terminated(text)
            instead = encode_reply(words[1], outcome, max_payload)
            if int(instead[: instead.index(b"\r\n")].rpartition(b" ")[2]) > max_payload:
                left_out = f"{text}, and no error text either: a reply is left out"
                changes.append(Change(left_out, words[1], Failed.because(FailureReason.REPLY_REFUSED, text)))
            else:
                kept.append(instead)
                changes.append(Change(f"{text}: told as AJ-Terminate", words[1], outcome))
        else:
            kept.append(data[position:end])
        position = end
    return b"".join(kept), changes


def _outcome_told(data: bytes, subject: bytes) -> type[Outcome] | None:
    """Returns the type of outcome of the reply on this subject; None if it is not among these publications."""
    at = data.find(b"PUB %b " % subject)
    if at < 0:
        return None
    if data[at - 1 : at] != b"H":
        return Completed
    begins = at + len(subject)
    return Terminated if b"\r\nAJ-Terminate:" in data[begins : begins + _HEADER_BEGINS] else Failed
