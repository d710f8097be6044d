"""The supervisor's handle of one worker process: its end, at which the rest of its session is killed
(`adapters/linux/stray_processes.py` finds others), its channel, ledger, stacks by signal, duplicate NATS socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Protocol

from ajhost.adapters.linux import processes, tcp
from ajhost.adapters.linux.channel import Channel, ChannelClosed, ChannelFull
from ajhost.adapters.linux.ledger_file import GuardedLedger
from ajhost.adapters.linux.processes import ExitStatus
from ajhost.core.timings import HEARTBEAT_AHEAD, REAP_RETRY, RESOURCE_RETRY, nanoseconds
from ajhost.ledger.layout import Word
from ajhost.roles import messages

_log = logging.getLogger("ajhost.supervisor")

LONGEST_STACKS = 200_000
"""At most so many bytes of stacks are read."""
_AHEAD_NS = nanoseconds(HEARTBEAT_AHEAD)


class WorkerEvents(Protocol):
    """The events of a worker's process; `WorkerPool` handles them."""

    def message_received(self, worker: WorkerProcess, message: messages.FromWorker) -> None:
        """Called for each message of a worker that its `WorkerProcess` does not handle."""

    def connection_opened(self, worker: WorkerProcess, sock: socket.socket) -> None:
        """Called when there is a duplicate of a worker's new connection, whose epoch is `worker.epoch`."""

    def worker_died(self, worker: WorkerProcess) -> None:
        """Called once, when the process has ended; `worker.result` says how."""


class WorkerProcess:
    """The handle of a worker process that is being forked, lives, or has just died."""

    def __init__(
        self, serial: int, slot: int, generation: int, directory: Path, channel: socket.socket, events: WorkerEvents
    ) -> None:
        self.serial, self.slot, self.generation = serial, slot, generation
        self.ledger = GuardedLedger(directory, serial)
        self.created_at = time.monotonic()
        self.pid = 0
        self.result: ExitStatus | None = None
        self.sock: socket.socket | None = None
        self.left = False
        self.last_words = ""
        """Why it cannot serve, if it has reported that (`StartFailed`)."""
        self.killed_at = 0.0
        self.hangs = False
        """Whether it hangs, as `LivenessMonitor` has found."""
        self.takeover_lock = asyncio.Lock()
        """Held while recovery takes over its connection: two takeovers of one ledger would run its requests twice."""
        self.epoch = self._taken_epoch = self._heartbeat_ns = 0
        self.pidfd = self._stacks = -1
        """The descriptor of the process; -1 before its start and after its end."""
        self._channel = Channel(channel)
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._channel.fileno(), self._readable)
        self._open = True

    def __str__(self) -> str:
        pid = self.pid or self.ledger.words[Word.PID]  # the template may not have reported its pid yet
        return f"worker {self.slot} (pid {pid})"

    def started(self, pid: int, pidfd: int) -> None:
        self.pid, self.pidfd = pid, pidfd
        self._loop.add_reader(pidfd, self._on_exit)

    @property
    def heartbeat_ns(self) -> int:
        """Its last heartbeat, in monotonic nanoseconds; before the first the time of its creation.

        A heartbeat in the future is a stray write, and is ignored: it would hide a hang for that long.
        """
        heartbeat_ns = self.ledger.words[Word.HEARTBEAT]
        if self._heartbeat_ns < heartbeat_ns <= time.monotonic_ns() + _AHEAD_NS:
            self._heartbeat_ns = heartbeat_ns
        return self._heartbeat_ns or int(self.created_at * 1e9)

    @property
    def has_beaten(self) -> bool:
        return bool(self._heartbeat_ns)

    @property
    def subscribed(self) -> bool:
        """Whether it has subscribed anew since recovery last took a connection over from it. True if none was taken."""
        return not self.takeover_lock.locked() and (
            not self._taken_epoch or self.ledger.words[Word.SUBSCRIBED] > self._taken_epoch
        )

    @property
    def dead(self) -> bool:
        return self.result is not None

    @property
    def connected(self) -> bool:
        """Whether neither end has closed its present connection, so that the server reads all that was sent on it."""
        sock = self.sock
        return sock is not None and self.epoch == self.ledger.words[Word.EPOCH] and tcp.is_whole(sock)

    def kill(self) -> None:
        self.killed_at = time.monotonic()
        if self.pidfd >= 0 and self.result is None:
            processes.pidfd_signal(self.pidfd, signal.SIGKILL)

    def ask_for_stacks(self) -> None:
        """Has its threads' stacks written from C (SIGUSR2), which needs neither its loop nor the interpreter's lock."""
        with contextlib.suppress(OSError):
            if self._stacks >= 0:
                os.ftruncate(self._stacks, 0)
            processes.pidfd_signal(self.pidfd, signal.SIGUSR2)

    def stacks(self) -> str:
        """Returns what it has written since `ask_for_stacks`: nothing if it writes to its log, or has not yet."""
        if self._stacks < 0:
            return ""
        return os.pread(self._stacks, LONGEST_STACKS, 0).decode(errors="replace")

    def send(self, message: messages.ToWorker) -> None:
        """Sends a message. Drops it if the process has ended (`_on_exit` follows) or does not read, as it hangs."""
        with contextlib.suppress(ChannelClosed, ChannelFull):
            if self._open:
                self._channel.send(messages.encode(message))

    def take_socket(self) -> socket.socket | None:
        """Hands out the duplicate of its present connection, once; None when there is none for the present epoch."""
        self._readable()
        sock, self.sock = self.sock, None
        if sock is not None and self.epoch != self.ledger.words[Word.EPOCH]:
            tcp.end_sending(sock)  # for every process that has it, also a child that a handler has forked
            sock.close()
            return None
        if sock is not None:
            self._taken_epoch = self.epoch
        return sock

    def give_back_socket(self, sock: socket.socket | None) -> None:
        """Takes back a socket that recovery did not use: the connection remains the worker's."""
        self.sock, self._taken_epoch = sock, 0

    def _readable(self) -> None:
        try:
            for found, descriptors in self._channel.received():
                try:
                    self._on_message(messages.FROM_WORKER.decode(found), descriptors)
                except messages.BadMessage as error:
                    _log.error("%s sent %s", self, error)
        except ChannelClosed:
            self._close_channel()

    def _on_message(self, message: messages.FromWorker, descriptors: list[int]) -> None:
        match message:
            case messages.StacksFile():
                self._close_stacks()
                self._stacks = descriptors[0] if descriptors else -1
            case messages.NewSocket(epoch) if descriptors:
                self._keep(epoch, descriptors[0])
            case messages.NewSocket(epoch):
                self._duplicate(epoch)
            case _:
                self._events.message_received(self, message)

    def _keep(self, epoch: int, descriptor: int) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock, self.epoch = socket.socket(fileno=descriptor), epoch
        self._events.connection_opened(self, self.sock)
        self.send(messages.SocketStored(epoch))

    def _duplicate(self, epoch: int) -> None:
        """Duplicates the socket with pidfd_getfd(2): this process had no free descriptor when the duplicate came."""
        words = self.ledger.words
        if not self._open or self.epoch >= epoch or words[Word.EPOCH] != epoch or not words[Word.SOCKET]:
            return
        try:
            descriptor = processes.pidfd_getfd(self.pidfd, words[Word.SOCKET])
        except OSError:
            self._loop.call_later(RESOURCE_RETRY, self._duplicate, epoch)
            return
        if words[Word.EPOCH] == epoch and words[Word.SOCKET]:
            self._keep(epoch, descriptor)
        else:
            os.close(descriptor)

    def _close_stacks(self) -> None:
        if self._stacks >= 0:
            os.close(self._stacks)
            self._stacks = -1

    def _close_channel(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()

    def restore_size(self) -> bool:
        """As `Ledger.restore_size`. Logs an error, since requests in the part that was cut off cannot be answered."""
        if not self.ledger.restore_size():
            return False
        _log.error("somebody has truncated the ledger of %s: requests that it held may stay unanswered", self)
        return True

    def _on_exit(self) -> None:
        # before it is reaped: until then the kernel gives its pid, which names its session, to no other process
        processes.kill_session(self.pid, signal.SIGKILL)
        ended = processes.wait_status(self.pidfd)
        if ended is None:  # the process between it and its template has not ended yet
            self._loop.remove_reader(self.pidfd)
            self._loop.call_later(REAP_RETRY, self._loop.add_reader, self.pidfd, self._on_exit)
            return
        self.result = ended
        self._loop.remove_reader(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        self._readable()
        self._close_channel()
        self._close_stacks()
        self.restore_size()
        self._events.worker_died(self)

    def discard(self) -> None:
        """Closes all, of a process that was never forked."""
        self._close_channel()
        self._close_stacks()
        self.ledger.close()
