"""What a server's -ERR means, and what has to be granted."""

from __future__ import annotations

import pytest

from ajhost.core.server_errors import Violation, reason_of, violation_of
from ajhost.ledger.connection_status import Reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Authorization Violation", Reason.AUTHORIZATION),
        ("User Authentication Expired", Reason.AUTHORIZATION),
        ("User Authentication Revoked", Reason.AUTHORIZATION),
        ("Account Authentication Expired", Reason.AUTHORIZATION),
        ("maximum connections exceeded", Reason.LIMIT),
        ("maximum account active connections exceeded", Reason.LIMIT),
        ("Secure Connection - TLS Required", Reason.TLS),
        ("Stale Connection", Reason.ENDED),
        ("Server Shutdown", Reason.ENDED),
        ("attempted to connect to route port", Reason.PROTOCOL),
        ("Unknown Protocol Operation", Reason.PROTOCOL),
        ('Permissions Violation for Publish to "x"', None),
        ("something new", None),
    ],
)
def test_reasons(text: str, reason: Reason | None) -> None:
    assert reason_of(text) is reason


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        (
            'Permissions Violation for Subscription to "CHORIA_AJ.H.T.x" using queue "ajhost"',
            Violation("subscribe", "CHORIA_AJ.H.T.x"),
        ),
        ('Permissions Violation for Publish to "_INBOX.a.b"', Violation("publish", "_INBOX.a.b")),
        ("maximum subscriptions exceeded", Violation("subscribe", "")),
        ("Authorization Violation", None),
    ],
)
def test_violations(text: str, violation: Violation | None) -> None:
    assert violation_of(text) == violation


def test_what_to_grant_for_an_inbox_is_all_inboxes() -> None:
    assert '"_INBOX.>"' in Violation("publish", "_INBOX.abc.def").grant()
    assert '"CHORIA_AJ.H.T.x"' in Violation("subscribe", "CHORIA_AJ.H.T.x").grant()
    assert "limit of subscriptions" in Violation("subscribe", "").grant()
