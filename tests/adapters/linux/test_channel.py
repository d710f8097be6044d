"""The channel between real sockets and real processes."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from ajhost.adapters.linux.channel import MAX_DESCRIPTORS, Channel, ChannelClosed, ChannelFull, pair


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    here, there = map(Channel, pair())
    yield here, there
    here.close()
    there.close()


def _received(channel: Channel) -> tuple[dict[str, object], list[int]]:
    received = channel.receive()
    assert received is not None
    return received


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    here.send({"first": 1})
    here.send({"second": ["ü", None, 2.5]})
    assert _received(there) == ({"first": 1}, [])
    assert _received(there) == ({"second": ["ü", None, 2.5]}, [])
    assert there.receive() is None


@pytest.mark.parametrize("size", [1, 60_000, 70_000, 5_000_000])
def test_a_message_of_any_length_arrives_with_its_descriptors(ends: tuple[Channel, Channel], size: int) -> None:
    here, there = ends
    read, write = os.pipe()
    here.send({"text": "x" * size}, [write])
    os.close(write)
    message, descriptors = _received(there)
    assert message == {"text": "x" * size}
    (copy,) = descriptors
    os.write(copy, b"hello")
    os.close(copy)
    assert os.read(read, 10) == b"hello"
    os.close(read)


def test_descriptors_arrive_closed_on_exec(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    here.send({}, [0])
    _, (copy,) = _received(there)
    assert fcntl.fcntl(copy, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(copy)


def test_as_many_descriptors_as_promised_arrive_together_with_a_long_message(
    ends: tuple[Channel, Channel],
) -> None:
    here, there = ends
    here.send({"text": "x" * 100_000}, [0] * MAX_DESCRIPTORS)
    _, descriptors = _received(there)
    assert len(descriptors) == MAX_DESCRIPTORS
    for descriptor in descriptors:
        os.close(descriptor)
    with pytest.raises(ValueError, match=str(MAX_DESCRIPTORS + 1)):
        here.send({}, [0] * (MAX_DESCRIPTORS + 1))


def test_a_peer_that_does_not_read_makes_the_channel_full_and_reading_frees_it(
    ends: tuple[Channel, Channel],
) -> None:
    here, there = ends
    sent = _fill(here)
    assert sent > 50
    with pytest.raises(ChannelFull):
        here.send({"number": sent})
    for number in range(sent):
        assert _received(there)[0] == {"number": number}
    here.send({"again": True})
    assert _received(there)[0] == {"again": True}


def test_what_was_sent_before_the_end_is_received_before_the_end_is_told(
    ends: tuple[Channel, Channel],
) -> None:
    here, there = ends
    here.send({"last": True})
    here.close()
    assert _received(there)[0] == {"last": True}
    with pytest.raises(ChannelClosed):
        there.receive()
    with pytest.raises(ChannelClosed):
        there.send({})


def test_a_peer_that_dies_with_mail_unread_is_still_heard_with_its_descriptors(
    ends: tuple[Channel, Channel],
) -> None:
    here, there = ends
    there.send({"unread": True})
    read, write = os.pipe()
    here.send({"socket": 1}, [write])
    os.close(write)
    here.close()
    message, (copy,) = _received(there)
    assert message == {"socket": 1}
    os.close(copy)
    os.close(read)
    with pytest.raises(ChannelClosed):
        there.receive()


def test_a_closed_end_says_so(ends: tuple[Channel, Channel]) -> None:
    here, _ = ends
    here.close()
    here.close()
    assert here.fileno() == -1
    with pytest.raises(ChannelClosed):
        here.receive()
    with pytest.raises(ChannelClosed):
        here.send({})


@pytest.mark.parametrize("body", [b"[1]", b"{", b"x" * 100_000, b"\0"])
def test_what_is_no_message_closes_the_channel_and_leaks_no_descriptor(body: bytes) -> None:
    foreign, there = pair()
    gc.collect()  # what other tests have left would be closed in between
    before = _open_descriptors()
    with foreign, there:
        socket.send_fds(foreign, [body], [0] if body != b"\0" else [])
        with pytest.raises(ChannelClosed, match="no message"):
            Channel(there).receive()
        assert _open_descriptors() == before


def test_a_process_out_of_descriptors_gets_the_message_without_them(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    here.send({"socket": 1}, [0, 1, 2])
    here.send({"next": True}, [0])
    before = _open_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # room for one more: the kernel installs that one and cuts the others off
    resource.setrlimit(resource.RLIMIT_NOFILE, (_first_free() + 1, hard))
    try:
        assert _received(there) == ({"socket": 1}, [])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert _open_descriptors() == before
    message, (copy,) = _received(there)
    assert message == {"next": True}
    os.close(copy)


def test_waiting_returns_the_message_that_comes(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    thread = threading.Thread(target=here.send, args=({"late": True},))
    thread.start()
    assert there.receive_wait(None) == ({"late": True}, [])
    thread.join()


def test_waiting_ends_with_the_time_and_with_the_peer(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    assert there.receive_wait(0.01) is None
    here.close()
    with pytest.raises(ChannelClosed):
        there.receive_wait(None)


def _first_free() -> int:
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


def _fill(channel: Channel) -> int:
    """Sends numbered messages until the channel is full; how many went."""
    for number in range(100_000):
        try:
            channel.send({"number": number})
        except ChannelFull:
            return number
    raise AssertionError("it never becomes full")


def _open_descriptors() -> set[str]:
    # the one that reads the directory is among them, always the first free one
    return set(os.listdir("/proc/self/fd"))
