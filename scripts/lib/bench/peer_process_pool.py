"""The least that can run handlers that compute: one reader, a pool of processes that block, one queue between them.

No event loop, no ledger, no deadline, nothing promised: whatever it loses to an ideal queue, the machine takes (the
server and the load beside it). `python -m scripts.lib.bench.peer_process_pool URL SUBJECT` serves with two processes
until it is killed, and prints `ready` before.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from urllib.parse import urlsplit

from ajhost.api import Task
from ajhost.protocol.frames import scan
from ajhost.protocol.task_record import read_task
from scripts.lib.bench.handlers import burn

PROCESSES = 2
_HELLO = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\nPING\r\n'
_LONGEST = 1 << 16


def connect(url: str) -> socket.socket:
    """A connection that the server has accepted."""
    server = urlsplit(url)
    connection = socket.create_connection((server.hostname or "localhost", server.port or 4222))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(_HELLO)
    seen = b""
    while not seen.endswith(b"PONG\r\n"):
        seen += connection.recv(_LONGEST)
    return connection


def work(url: str, queue: socket.socket) -> None:
    """Answers what the reader puts into the queue, one after another, until the reader is gone."""
    connection = connect(url)
    while request := queue.recv(_LONGEST):
        reply, _, body = request.partition(b" ")
        result = burn(Task(read_task(body), 0.0)).encode()
        connection.sendall(b"PUB %b %d\r\n%b\r\n" % (reply, len(result), result))
        with contextlib.suppress(BlockingIOError):
            if b"PING\r\n" in connection.recv(_LONGEST, socket.MSG_DONTWAIT):
                connection.sendall(b"PONG\r\n")


def read(url: str, subject: str, queue: socket.socket) -> None:
    """Puts every request into the queue."""
    connection = connect(url)
    connection.sendall(b"SUB %b bench 1\r\nPING\r\n" % subject.encode())
    data = b""
    while received := connection.recv(_LONGEST):
        data += received
        found = scan(data)
        for _, _, body, end, _, reply in found.messages:
            queue.sendall(reply + b" " + data[body : end - 2])
        for line in found.controls:
            if line == b"PING\r\n":
                connection.sendall(b"PONG\r\n")
            elif line == b"PONG\r\n":
                print("ready", flush=True)
        data = data[found.end :]


def main() -> None:
    """Entry point."""
    url, subject = sys.argv[1:]
    taken, given = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    given.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
    for _ in range(PROCESSES):
        if os.fork() == 0:
            given.close()
            work(url, taken)
            os._exit(0)
    taken.close()
    read(url, subject, given)


if __name__ == "__main__":
    main()
