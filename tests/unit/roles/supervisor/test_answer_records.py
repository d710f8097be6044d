"""How the supervisor records what it has answered for others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ajhost.protocol.outcome import Failed
from ajhost.roles.supervisor.answer_records import AnswerRecords
from tests.support.memory_ledger import ledger_in_memory

COUNT = 50


def test_answers_do_not_wait_until_those_before_them_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    later: list[Callable[[], None]] = []
    answered, ledger = AnswerRecords(tmp_path, ["type"], later.append), ledger_in_memory()
    for number in range(COUNT):
        index = ledger.receive(0, 0, 1)
        ledger.start(index, 2, b"r", b"%d" % number, b"type", 0, 1)
        answered.begun(ledger, ledger.entry(index), Failed("worker died: SIGKILL"))
        ledger.release(index)
    assert not caplog.records
    later.pop()()
    assert 0 < len(caplog.records) < COUNT
    while later:
        later.pop()()
    told = [record.__dict__["aj_task"] for record in caplog.records]
    assert told == [str(number) for number in range(COUNT)]


def test_the_end_leaves_no_answer_untold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answered, ledger = AnswerRecords(tmp_path, ["type"], lambda tell: None), ledger_in_memory()
    index = ledger.receive(0, 0, 1)
    ledger.start(index, 2, b"r", b"7", b"type", 0, 1)
    answered.begun(ledger, ledger.entry(index), Failed("worker died: SIGKILL"))
    answered.close()
    (record,) = caplog.records
    assert record.__dict__["aj_task"] == "7"
