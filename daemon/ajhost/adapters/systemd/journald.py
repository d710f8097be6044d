"""Sends log records and printed lines to journald, in its fields, without blocking; counts what it drops. Bounds
blocking writes to stdout and stderr.

`sendv` of systemd's Python binding blocks with the interpreter's lock held while journald's socket is full. A stalled
journald would stop every thread of the supervisor and of all workers. Here a record that does not fit into the socket
is dropped and counted, and the count is logged once journald reads again. Format:
https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import logging
import os
import socket
import struct
import time
from collections.abc import Mapping

from ajhost.adapters.linux.descriptors import closing
from ajhost.adapters.logs.log_record import RecordHandler, labels_of, text_of
from ajhost.adapters.logs.prints import Priority, priority_of
from ajhost.core.timings import JOURNAL_WRITE_LIMIT

_DATAGRAMS = "/run/systemd/journal/socket"
_BUFFER = 8 << 20
_LIBC = ctypes.CDLL(None)


def is_attached() -> bool:
    """Whether stderr is connected to journald: `$JOURNAL_STREAM` names its device and inode (systemd.exec(5))."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def field(name: str, value: str) -> bytes:
    """Returns one field in journald's native format. `name` is upper case."""
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(data)), data)
    return b"%b=%b\n" % (name.encode(), data)


class Journal:
    """A non-blocking datagram socket to journald. `constant`: fields of every record, names in upper case.

    `dropped`: records dropped since the last one that was sent.
    """

    def __init__(self, constant: Mapping[str, str], address: str = _DATAGRAMS) -> None:
        self._constant = b"".join(field(name, value) for name, value in constant.items())
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # overrides socket.setdefaulttimeout of the application
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self.dropped = 0
        self._since = 0.0

    def send(self, record: bytes) -> None:
        """Sends fields of one record, or counts it as dropped. Raises nothing."""
        if not self._offer(record):
            if not self.dropped:
                self._since = time.time()
            self.dropped += 1
        else:
            self.report_lost()

    def report_lost(self) -> None:
        """Sends a record with the number of dropped records, if there are any and the socket has room."""
        if not self.dropped:
            return
        dropped, since = self.dropped, time.strftime("%H:%M:%S", time.localtime(self._since))
        text = f"{dropped} log records were lost since {since}: the journal did not take them"
        note = field("MESSAGE", text) + field("PRIORITY", str(Priority.WARNING)) + field("AJ_LOST", str(dropped))
        if self._offer(note):
            self.dropped = 0

    def _offer(self, record: bytes) -> bool:
        data = self._constant + record
        try:
            self._socket.sendto(data, self._address)
        except OSError as error:
            return error.errno in (errno.EMSGSIZE, errno.ENOBUFS) and self._offer_file(data)
        return True

    def _offer_file(self, data: bytes) -> bool:
        """Sends a record that is too large for a datagram as the descriptor of a sealed memfd."""
        try:
            with closing(os.memfd_create("ajhost-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)) as fd:
                with open(fd, "wb", closefd=False) as file:
                    file.write(data)
                seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
                self._socket.sendmsg([], [rights], 0, self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Closes the socket. Dropped records that were not reported yet are not reported any more."""
        self._socket.close()


class JournalHandler(RecordHandler):
    """Sends records and printed lines: text with traceback, priority, place in the code, labels of the task."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal

    def write(self, record: logging.LogRecord) -> None:
        """Sends the record. Does not block."""
        place = {
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
        }
        self._send(text_of(record), priority_of(record.levelno), place | labels_of(record))

    def print_line(self, _: str, text: str, priority: int, labels: Mapping[str, str]) -> None:
        self._send(text, priority, labels)

    def _send(self, text: str, priority: int, more: Mapping[str, str]) -> None:
        fields = {"MESSAGE": text, "PRIORITY": str(int(priority)), **more}
        self.journal.send(b"".join(field(name.upper(), value) for name, value in fields.items()))

    def close(self) -> None:
        self.journal.close()
        super().close()


def bound_stdio() -> None:
    """Bounds writes to stdout and stderr at JOURNAL_WRITE_LIMIT, if they lead to journald; a longer write fails.

    For writers that bypass `sys.stdout`: C code, the interpreter's own errors, child processes. They use the stream
    sockets that systemd opened, by which journald knows the unit even if the writer has ended meanwhile. A write blocks
    once journald is 8 MB behind. The bound (SO_SNDTIMEO) holds for every process that shares the sockets.
    """
    if not is_attached():
        return
    wait = struct.pack("@ll", 0, int(JOURNAL_WRITE_LIMIT * 1e6))
    for fd in (1, 2):
        # A socket object would make the stream non-blocking for every process that shares it, if the application has
        # called socket.setdefaulttimeout. The call fails for a stream that is no socket, which is right.
        _LIBC.setsockopt(fd, socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait, len(wait))
