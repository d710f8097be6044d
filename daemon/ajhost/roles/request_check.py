"""Whether a request can be served, by which handler, and by when: asked by workers and by the last resort alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from ajhost.core.deadline import PLAUSIBLE_SKEW, Skew, budget
from ajhost.core.routing import Routes
from ajhost.protocol.outcome import Failed
from ajhost.protocol.signature import read_key, verify
from ajhost.protocol.task import TaskRecord
from ajhost.protocol.wire import Refusal, read_request, route_of
from ajhost.settings.values import HandlerSettings, SignatureSettings

_log = logging.getLogger("ajhost.requests")
MARGIN = 0.2
"""Seconds before the header's second at which an answer leaves at the latest."""
_KNOWN = 1024
_SKEW_WARNING = 2.0
_SKEW_REPEAT = 60.0


CheckedRequest = tuple[TaskRecord, int, float, float]
"""A request that can be served: its record, the handler (counted in the configured order), deadline and time of receipt
in monotonic seconds. A plain tuple, since it is made for every request."""


class RequestChecker:
    """Reads requests and decides what can be decided without knowing how busy anybody is."""

    def __init__(
        self, handlers: Sequence[HandlerSettings], default_timeout: float, signature: SignatureSettings
    ) -> None:
        self._timeouts = [h.timeout for h in handlers]
        self._index = {h.route: i for i, h in enumerate(handlers)}
        self._routes = Routes(self._index)
        self._default = default_timeout
        self._keys = [read_key(key) for key in signature.keys]
        self._known: dict[tuple[bytes, str], int | None] = {}
        self._skew = Skew()
        self._skew_told = -_SKEW_REPEAT

    def check(self, subject: bytes, header: bytes, body: bytes) -> CheckedRequest | Failed:
        """What the request asks for, or the refusal that answers it."""
        request = read_request(header, body)
        if isinstance(request, Refusal):
            return Failed(request.text)
        record, header_ns = request
        key = (subject, record.type)
        try:
            handler = self._known[key]
        except KeyError:
            handler = self._find(key)
        if handler is None:
            return Failed(f"unknown task type: {record.type} has no handler here")
        if self._keys and (reason := verify(record, self._keys)) is not None:
            return Failed(f"bad request: {reason}")
        now, tried = time.monotonic(), record.tried_ns
        deadline, skew = budget(
            header_ns, tried, time.time_ns(), now, self._timeouts[handler], self._default, MARGIN,
            self._skew.ahead,
        )  # fmt: skip
        if tried is not None and self._skew.observe(skew, now):
            self._tell_skew(now)
        if deadline <= now:
            return Failed("deadline exceeded: it had passed when the request was read")
        return record, handler, deadline, now

    def _tell_skew(self, now: float) -> None:
        ahead = self._skew.ahead or self._skew.implausible
        if ahead > _SKEW_WARNING and now - self._skew_told >= _SKEW_REPEAT:
            self._skew_told = now
            what = "corrected for" if ahead <= PLAUSIBLE_SKEW else "too much to correct for: set it right"
            _log.warning("this clock is %.1f s ahead of the routers'; %s", ahead, what)

    def _find(self, key: tuple[bytes, str]) -> int | None:
        try:
            name = self._routes.match(route_of(key[0].decode()), key[1])
        except ValueError:
            name = None
        if len(self._known) >= _KNOWN:
            self._known.clear()
        found = self._known[key] = None if name is None else self._index[name]
        return found
