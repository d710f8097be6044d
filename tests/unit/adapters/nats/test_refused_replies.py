"""What goes out again fits the server that it meets."""

from __future__ import annotations

from ajhost.adapters.nats.refused_replies import fit

SMALL, HEADED = b"PUB R.1 5\r\nhello\r\n", b"HPUB R.2 12 14\r\nNATS/1.0\r\n\r\nok\r\n"
LARGE = b"PUB R.3 5000\r\n" + b"x" * 5000 + b"\r\n"


def test_what_fits_stays_as_it_is() -> None:
    assert fit(SMALL + HEADED + LARGE, 5000) == (SMALL + HEADED + LARGE, [])


def test_what_is_too_large_is_told_as_such_and_its_neighbours_leave() -> None:
    data, changes = fit(SMALL + LARGE + HEADED, 4096)
    assert data.startswith(SMALL + b"HPUB R.3 ")
    assert data.endswith(HEADED)
    assert b"AJ-Terminate: result too large: 5000 bytes, the server takes 4096" in data
    assert len(changes) == 1


def test_a_subject_that_nobody_can_publish_to_is_left_out() -> None:
    for subject in (b"R.>", b"R..x", b"R\tx", b"", b"R x y z"):
        data, changes = fit(SMALL + b"PUB %b 2\r\nno\r\n" % subject + HEADED, 4096)
        assert data == SMALL + HEADED, subject
        assert len(changes) == 1


def test_what_is_no_command_is_left_out() -> None:
    assert fit(SMALL + b"garbage", 4096)[0] == SMALL
    assert fit(b"PUB x\r\n", 4096)[0] == b""
    assert fit(b"PUB x " + b"9" * 5000 + b"\r\n", 4096)[0] == b""
