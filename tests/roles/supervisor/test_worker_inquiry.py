"""What workers are asked, and when an answer counts."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from ajhost.adapters.linux import ledger_file
from ajhost.adapters.linux.channel import Channel, pair
from ajhost.ledger.layout import Geometry, Identity
from ajhost.roles.messages import CancelOrder, CancelResult, FromWorker, StacksResult, encode
from ajhost.roles.supervisor.worker_pool import WorkerInquiry
from ajhost.roles.supervisor.worker_process import WorkerProcess


class Listener:
    """Whoever listens to a worker, as far as this is about answers."""

    def __init__(self, inquiry: WorkerInquiry) -> None:
        self.inquiry = inquiry

    def message_received(self, member: WorkerProcess, message: FromWorker) -> None:
        """An answer."""
        assert isinstance(message, CancelResult | StacksResult)
        self.inquiry.heard(member, message)

    def connection_opened(self, member: WorkerProcess, sock: socket.socket) -> None:
        """It has none."""

    def worker_died(self, member: WorkerProcess) -> None:
        """It has no process."""


async def test_an_answer_that_comes_too_late_is_none_to_the_next_question(tmp_path: Path) -> None:
    """A worker that hung for a while answers all that it was asked meanwhile, the oldest question first."""
    inquiry = WorkerInquiry()
    ledger_file.make(tmp_path, Geometry(8, 1 << 17, 1 << 12), Identity(1, 0, 1))
    ours, theirs = pair()
    channel = Channel(theirs)
    worker = WorkerProcess(1, 0, 1, tmp_path, ours, Listener(inquiry))
    try:
        assert await inquiry.ask([worker], CancelOrder("A", False, "why"), CancelResult, 0.01) == {}
        second = asyncio.create_task(inquiry.ask([worker], CancelOrder("B", False, "why"), CancelResult, 10.0))
        await asyncio.sleep(0)  # it is asked
        for late in (CancelResult("A", ""), StacksResult("B", "task B"), CancelResult("B", "running")):
            channel.send(encode(late))
        assert await second == {1: "running"}
    finally:
        worker.discard()
        channel.close()
