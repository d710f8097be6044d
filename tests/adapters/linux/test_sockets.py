"""Non-blocking calls on real sockets: what they raise, and that no other thread runs meanwhile."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from ajhost.adapters.linux import sockets


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends, blocking as Python makes them."""
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def test_bytes_go_over_and_land_where_they_should(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    memory = bytearray(b"........")
    assert sockets.send(here, b"a\0bc") == 4
    assert sockets.receive(there, memoryview(memory)[2:7]) == 4
    assert memory == b"..a\0bc.."
    assert sockets.send(here, b"123456") == 6
    assert sockets.receive(there, memoryview(memory)[:2]) == 2
    assert memory == b"12a\0bc.."


def test_nothing_waits_even_on_a_blocking_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    with pytest.raises(BlockingIOError):
        sockets.receive(here, memoryview(bytearray(1)))
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 1 << 24:
            sent += sockets.send(here, bytes(1 << 16))
    assert 0 < sent == len(there.recv(1 << 24, socket.MSG_DONTWAIT | socket.MSG_WAITALL)) < 1 << 24


def test_the_end_is_zero_bytes_and_what_is_broken_says_so(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    there.close()
    assert sockets.receive(here, memoryview(bytearray(8))) == 0
    with pytest.raises(BrokenPipeError):  # and no SIGPIPE
        sockets.send(here, b"x")
    here.close()
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        sockets.send(here, b"x")
    assert raised.value.errno == errno.EBADF


def test_no_other_thread_runs_meanwhile(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    turns, over = [0], threading.Event()

    def take_every_turn() -> None:
        while not over.is_set():
            turns[0] += 1
            time.sleep(0)

    def turns_of_others(call: str) -> int:
        before, space = turns[0], memoryview(bytearray(1))
        calls = 0
        while calls < 2000 or (call != "ours" and turns[0] == before):  # a busy machine lets it wait
            calls += 1
            if call == "ours":
                sockets.send(here, b"x")
                sockets.receive(there, space)
            else:
                here.send(b"x")
                there.recv_into(space)
        return turns[0] - before

    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # a thread that wants the lock waits so long before it asks for it
    other = threading.Thread(target=take_every_turn)
    try:
        other.start()
        assert turns_of_others("ours") == 0
        assert turns_of_others("Python's") > 0
    finally:
        over.set()
        other.join()
        sys.setswitchinterval(interval)
