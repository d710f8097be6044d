"""NATS frames out of a byte stream: any cut gives the same frames, and nothing hostile gives a wrong one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajhost.protocol import frames
from ajhost.protocol.frames import FrameError, message_line, scan

Seen = tuple[str, bytes, bytes, bytes, bytes]

MSG = b"MSG a.b 1 _INBOX.x.1 5\r\nhello\r\n"
NO_REPLY = b"MSG a.b 1 0\r\n\r\n"
HMSG = b"HMSG a.c 22 _INBOX.y 14 17\r\nNATS/1.0\r\n\r\n\r\nend\r\n"
HMSG_NO_REPLY = b"HMSG a.c 22 12 12\r\nNATS/1.0\r\n\r\n\r\n"
TRICKY = b"MSG t 1 r 20\r\nMSG x 1 9\r\n\r\nPING\r\n.\r\n"
CONTROLS = (b"PING\r\n", b'INFO {"a":1}\r\n', b"-ERR 'Slow Consumer'\r\n", b"+OK\r\n")
STREAM = b"".join((CONTROLS[1], MSG, CONTROLS[0], HMSG, NO_REPLY, TRICKY, CONTROLS[2], HMSG_NO_REPLY, CONTROLS[3], MSG))


def fed(pieces: list[bytes]) -> tuple[list[Seen], bytes]:
    """What a reader sees of a stream that arrives in pieces, and what it has left."""
    seen: list[Seen] = []
    rest = b""
    for piece in pieces:
        rest += piece
        found = scan(rest)
        for begin, header, body, end, subject, reply in found.messages:
            assert rest[begin:].startswith((b"MSG", b"HMSG"))
            seen.append(("message", subject, reply, rest[header:body], rest[body : end - 2]))
        seen.extend(("control", line, b"", b"", b"") for line in found.controls)
        rest = rest[found.end :]
        assert found.needed == 0 or found.needed > len(rest)
    return seen, rest


def in_kinds(seen: list[Seen]) -> tuple[list[Seen], list[Seen]]:
    return [s for s in seen if s[0] == "message"], [s for s in seen if s[0] == "control"]


WHOLE = in_kinds(fed([STREAM])[0])


def test_the_frames_of_a_stream_are_found() -> None:
    messages, controls = WHOLE
    assert [m[1:] for m in messages] == [
        (b"a.b", b"_INBOX.x.1", b"", b"hello"),
        (b"a.c", b"_INBOX.y", b"NATS/1.0\r\n\r\n\r\n", b"end"),
        (b"a.b", b"", b"", b""),
        (b"t", b"r", b"", b"MSG x 1 9\r\n\r\nPING\r\n."),
        (b"a.c", b"", b"NATS/1.0\r\n\r\n", b""),
        (b"a.b", b"_INBOX.x.1", b"", b"hello"),
    ]
    assert tuple(c[1] for c in controls) == (CONTROLS[1], CONTROLS[0], CONTROLS[2], CONTROLS[3])


def test_a_stream_cut_anywhere_gives_the_same_frames() -> None:
    for cut in range(len(STREAM) + 1):
        seen, rest = fed([STREAM[:cut], STREAM[cut:]])
        assert (in_kinds(seen), rest) == (WHOLE, b""), cut


def test_a_stream_that_comes_byte_by_byte_gives_the_same_frames() -> None:
    seen, rest = fed([STREAM[i : i + 1] for i in range(len(STREAM))])
    assert (in_kinds(seen), rest) == (WHOLE, b"")


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_in_any_pieces_gives_the_same_frames(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    seen, rest = fed([STREAM[a:b] for a, b in pairwise(places)])
    assert (in_kinds(seen), rest) == (WHOLE, b"")


@pytest.mark.parametrize("frame", [MSG, NO_REPLY, HMSG, HMSG_NO_REPLY, TRICKY])
def test_what_an_unfinished_frame_takes_is_known_as_soon_as_its_line_is_there(frame: bytes) -> None:
    line = frame.index(b"\r\n") + 2
    for size in range(len(frame)):
        found = scan(frame[:size])
        assert (found.messages, found.controls, found.end) == ([], [], 0)
        assert found.needed == (len(frame) if size >= line else 0)


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
def test_no_more_messages_than_the_limit_are_found_and_the_rest_stays(limit: int) -> None:
    stream = CONTROLS[0] + MSG + CONTROLS[0] + HMSG + TRICKY
    found = scan(stream, 0, limit)
    assert len(found.messages) == limit
    assert found.needed == 0
    assert scan(stream, found.end).messages == scan(stream).messages[limit:]
    assert found.controls + scan(stream, found.end).controls == [CONTROLS[0]] * 2


def test_a_scan_begins_where_it_is_told() -> None:
    assert scan(MSG + HMSG, len(MSG)).messages[0][0] == len(MSG)


@pytest.mark.parametrize(
    "line",
    [
        b"MSG",
        b"M",
        b"H",
        b"MSG 5",
        b"MSG a 5",
        b"MSG a 1 r x 5",
        b"MSG a 1 r five",
        b"MSG a 1 -30",
        b"MSG a 1 -1",
        b"MSG a 1 0x1",
        b"MSGS a 1 5",
        b"Mallory a 1 5",
        b"HMSG a 1 5",
        b"HMSG a 1 r x 5 5",
        b"HMSG a 1 6 5",
        b"HMSG a 1 -1 5",
        b"HMSG a 1 x 5",
        b"HMSG a 1 5 -99",
    ],
)
def test_a_line_that_is_no_message_is_an_error_and_never_a_frame(line: bytes) -> None:
    bad = line + b"\r\nhello\r\n"
    with pytest.raises(FrameError, match="^not a message line: "):
        scan(bad)
    with pytest.raises(FrameError):
        scan(MSG + bad, len(MSG))


def test_a_body_that_does_not_end_where_its_line_says_is_an_error() -> None:
    with pytest.raises(FrameError, match="^no end where this says: b'MSG a 1 4'"):
        scan(b"MSG a 1 4\r\nhello\r\n")


@pytest.mark.parametrize("bad", [b"MSG a 1 -30\r\n", b"MSG a 1 r 1\r\nhello\r\n"])
def test_what_is_whole_before_a_malformed_frame_is_found_first(bad: bytes) -> None:
    found = scan(MSG + CONTROLS[0] + bad)
    assert (len(found.messages), found.controls, found.end) == (1, [CONTROLS[0]], len(MSG + CONTROLS[0]))
    with pytest.raises(FrameError):
        scan(bad)


@given(st.binary(max_size=60) | st.builds(bytes.join, st.just(b" "), st.lists(st.sampled_from(
    [b"MSG", b"HMSG", b"a", b"1", b"-9", b"5\r\n", b"12\r\nhello", b"\r\n", b"PING\r\n"]), max_size=9)))  # fmt: skip
def test_any_bytes_end_in_frames_in_order_or_in_an_error(data: bytes) -> None:
    try:
        found = scan(data)
    except FrameError:
        return
    at = 0
    for begin, header, body, end, _, _ in found.messages:
        assert at <= begin < header <= body <= end - 2
        at = end
    assert at <= found.end <= len(data)


def test_an_operation_line_without_an_end_is_an_error() -> None:
    at_most = b"MSG " + b"a" * (frames.LONGEST_LINE - 4)
    assert scan(at_most).end == 0
    with pytest.raises(FrameError, match="too long"):
        scan(at_most + b"a")


def test_a_line_longer_than_a_publishers_limit_is_read() -> None:
    subject = b"s" * 4090
    assert scan(b"MSG %b 1 r 0\r\n\r\n" % subject).messages[0][4:] == (subject, b"r")


def test_other_lines_may_be_long() -> None:
    info = b"INFO " + b"x" * (frames.LONGEST_LINE * 2)
    assert scan(info).end == 0
    assert scan(info + b"\r\n").controls == [info + b"\r\n"]


@pytest.mark.parametrize("frame", [MSG, NO_REPLY, HMSG, HMSG_NO_REPLY])
def test_the_line_of_an_oversize_message_tells_subject_reply_and_length(frame: bytes) -> None:
    _, _, _, end, subject, reply = scan(frame).messages[0]
    head = frame[: frame.index(b"\r\n") + 2]
    assert message_line(head) == (subject, reply, end)


@pytest.mark.parametrize(
    "head", [b"", b"MSG a 1 5", b"\r\n", b"PING\r\n", b"INFO {}\r\n", b"MSG a 1 " + b"9" * 5000 + b"\r\n"]
)
def test_what_is_no_message_has_no_message_line(head: bytes) -> None:
    assert message_line(head) is None
