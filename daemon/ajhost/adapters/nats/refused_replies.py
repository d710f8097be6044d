"""Replies that a server does not accept: they are too large for it, or it refuses their subject.

The connection's sink is told, since it has counted another outcome than the one that the requester gets.
"""

from __future__ import annotations

import logging

from ajhost.adapters.nats.interfaces import Sink
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.outcome import Failed
from ajhost.protocol.reasons import FailureReason
from ajhost.protocol.smaller_max_payload import fit, outcome_told

_log = logging.getLogger("ajhost.nats")
_LEAST_LIMIT = 1024
"""Bytes of payload into which any reply fits, as an error at least. A user may be allowed fewer."""


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
            before = outcome_told(data, change.subject)
            index = next((i for i in entries if self._ledger.reply(i) == change.subject), None)
            if before is not None and index is not None and change.outcome is not None:
                self._sink.reply_replaced(index, before, change.outcome)
        return fitting

    def take_back(self, index: int, data: bytes, subject: bytes, why: str) -> None:
        """Tells the sink that the server has refused the reply of an entry, which was sent among `data`."""
        before = outcome_told(data, subject)
        if before is not None:
            self._sink.reply_replaced(index, before, Failed.because(FailureReason.REPLY_REFUSED, why))
