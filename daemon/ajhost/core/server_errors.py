"""Reads a NATS server's `-ERR`: why the server ends the connection, which permission or limit the host's user lacks,
and the words for what an operator has to grant. Source: nats-server, server/errors.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ajhost.ledger.connection_status import Reason
from ajhost.protocol.safe_text import printable

_MEANINGS: tuple[tuple[str, Reason], ...] = (
    ("authorization violation", Reason.AUTHORIZATION),
    ("authentication expired", Reason.AUTHORIZATION),
    ("authentication revoked", Reason.AUTHORIZATION),
    ("authentication timeout", Reason.ENDED),
    ("maximum connections exceeded", Reason.LIMIT),
    ("maximum account active connections exceeded", Reason.LIMIT),
    ("connection throttling", Reason.LIMIT),
    ("server shutdown", Reason.ENDED),
    ("attempted to connect to", Reason.PROTOCOL),
    ("secure connection", Reason.TLS),
    ("stale connection", Reason.ENDED),
    ("slow consumer", Reason.ENDED),
    ("maximum payload violation", Reason.ENDED),
    ("maximum control line exceeded", Reason.PROTOCOL),
    ("unknown protocol operation", Reason.PROTOCOL),
    ("parser error", Reason.PROTOCOL),
)
_PERMISSION = re.compile(r"permissions violation for (subscription|publish) to \"?([^\" ]*)\"?", re.IGNORECASE)
_LONGEST_ERROR = 512
"""Characters of an error that are shown."""
_SUBSCRIPTIONS = re.compile(r"maximum subscriptions exceeded", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Violation:
    """A permission that this host's user lacks: to `publish` or to `subscribe` to `subject`.

    Without a subject the user has reached its limit of subscriptions.
    """

    operation: str
    subject: str

    def grant(self) -> str:
        """Returns the words for what an operator has to grant."""
        subject = self.subject
        if not subject:
            return "raise the limit of subscriptions of the host's user (a connection needs one for each route)"
        if self.operation == "publish" and subject.count(".") > 1:
            # an inbox: its rest differs for each requester
            subject = f"{subject.partition('.')[0]}.>"
        return f'grant the host\'s user the permission to {self.operation} to "{subject}"'


def error_text(line: bytes) -> str:
    """Returns the text of a server's `-ERR`, safe for a log or a terminal."""
    text = line[4 : 4 + 4 * _LONGEST_ERROR].decode("utf-8", "replace").strip(" '\r\n")[:_LONGEST_ERROR]
    return printable(text) or "an error without a text"


def reason_of(text: str) -> Reason | None:
    """Returns why the server ends a connection, by its `-ERR`; None for an error that ends none or is unknown."""
    lowered = text.lower()
    return next((reason for words, reason in _MEANINGS if words in lowered), None)


def violation_of(text: str) -> Violation | None:
    """Returns the missing permission that an `-ERR` names; None for another error."""
    found = _PERMISSION.search(text)
    if found is not None:
        return Violation("publish" if found[1].lower() == "publish" else "subscribe", found[2])
    if _SUBSCRIPTIONS.search(text):
        return Violation("subscribe", "")
    return None
