"""Messages whose kinds others choose: subjects of requesters, errors of a server."""

from __future__ import annotations

import logging
import time

import pytest

from ajhost.adapters.logs.host_failures_log import HostFailuresLog


def test_however_many_kinds_there_are_few_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    log = HostFailuresLog(logging.getLogger("acme"))
    for number in range(5000):
        log.tell(logging.ERROR, f"kind {number}", "refused: %d", number)
    assert [record.getMessage() for record in caplog.records] == [f"refused: {n}" for n in range(17)]
    now += 31.0
    log.tell(logging.ERROR, "kind 3", "refused: %d", 3)
    log.tell(logging.ERROR, "kind 9000", "refused: %d", 9000)
    assert [record.getMessage() for record in caplog.records[17:]] == ["refused: 3", "refused: 9000"]
