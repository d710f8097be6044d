"""A worker that wakes while the supervisor answers in its place: one of the two does."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ajhost.adapters.linux import processes
from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.ledger.layout import Word
from ajhost.protocol.outcome import Failed
from ajhost.roles.supervisor import cancel
from ajhost.roles.supervisor.overdue_answers import OverdueAnswers
from ajhost.roles.supervisor.worker_process import WorkerProcess
from tests.support.host_parts import HostParts, frame

REPLY = b"R.1"


class Sleeper:
    """A worker with one task that runs, past its deadline. It wakes when it is told to, and answers if it may."""

    def __init__(self, parts: HostParts) -> None:
        serial = parts.new_serial()
        reader, self._wake = os.pipe()
        self._said, writer = os.pipe()
        self.pid = os.fork()
        if self.pid != 0:
            os.close(reader)
            os.close(writer)
        else:
            try:
                owner = LockedLedger(parts.directory, serial)
                index = owner.start_pulled(1)
                owner.set_deadline(index, 1)
                owner.start(index, 1, REPLY, b"task", b"t", 0, 1)
                owner.words[Word.HEARTBEAT] = 1
                os.write(writer, b".")
                os.read(reader, 1)
                os.write(writer, b"mine" if owner.answer(index) else b"lost")
            finally:
                os._exit(0)
        assert os.read(self._said, 1) == b"."
        self.pidfd = os.pidfd_open(self.pid)
        self.ledger = MappedLedger(parts.directory, serial)

    def wake(self) -> None:
        os.write(self._wake, b".")
        # if it runs it has answered by then; if it stands still it says nothing, however long this is
        said = select.poll()  # select(2) takes no descriptor beyond 1023
        said.register(self._said, select.POLLIN)
        said.poll(50)

    def said(self) -> bytes:
        answer = os.read(self._said, 4)
        os.waitpid(self.pid, 0)
        for descriptor in (self._said, self._wake, self.pidfd):
            os.close(descriptor)
        self.ledger.close()
        return answer


def cancelled(parts: HostParts, worker: Sleeper) -> None:
    asked = cast("WorkerProcess", SimpleNamespace(pid=worker.pid, pidfd=worker.pidfd, ledger=worker.ledger))
    assert cancel._answer_for(asked, "task", Failed("cancelled: here"), parts.standby)


def overdue(parts: HostParts, worker: Sleeper) -> None:
    answers, still = (
        OverdueAnswers(parts.standby),
        partial(processes.standing_still, worker.pidfd, worker.pid, 5.0),
    )
    for _ in range(2):
        answers.check(worker.ledger, time.monotonic_ns(), 0, still=still)


@pytest.mark.parametrize("answer_for", [cancelled, overdue])
async def test_a_worker_that_wakes_while_it_is_answered_for_does_not_answer_as_well(
    parts: HostParts, monkeypatch: pytest.MonkeyPatch, answer_for: Callable[[HostParts, Sleeper], None]
) -> None:
    worker = Sleeper(parts)
    answer = parts.standby.answer

    def slowly(*arguments: Any) -> None:
        answer(*arguments)
        worker.wake()

    monkeypatch.setattr(parts.standby, "answer", slowly)
    answer_for(parts, worker)
    assert worker.said() == b"lost"
    await parts.settle()
    assert len(parts.answers[REPLY]) == 1


async def test_what_waits_at_a_worker_that_hangs_is_left_to_a_consumer_that_claims_it(
    parts: HostParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = LockedLedger(parts.directory, parts.new_serial())
    owner.words[Word.HEARTBEAT] = 1
    index = owner.receive_copy(frame(REPLY), 1)
    assert index is not None
    owner.set_deadline(index, 1)
    owner.queue(index, 1)
    take_back = LockedLedger.take_back

    def late(self: LockedLedger, entry: int, seq: int) -> bool:
        self.claim(entry, seq)
        return take_back(self, entry, seq)

    monkeypatch.setattr(LockedLedger, "take_back", late)
    answers = OverdueAnswers(parts.standby)
    for _ in range(2):
        answers.check(owner, time.monotonic_ns(), 0, still=lambda: nullcontext(True))
    await parts.settle()
    assert parts.answers == {}
    assert not owner.is_revoked(index, 1)
