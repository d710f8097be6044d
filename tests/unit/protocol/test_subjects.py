"""Which subjects a route has, and which reply subjects are answered."""

from __future__ import annotations

import pytest

from ajhost.protocol.subjects import reply_subjects, route_of, subjects_of


@pytest.mark.parametrize(
    ("route", "subjects"),
    [
        ("email:new", ("CHORIA_AJ.H.T.email:new",)),
        ("email:", ("CHORIA_AJ.H.T.email:",)),
        ("", ("CHORIA_AJ.H.T.catchall", "CHORIA.AJ.H.T.catchall")),
    ],
)
def test_a_route_has_its_subjects_and_back(route: str, subjects: tuple[str, ...]) -> None:
    assert subjects_of(route) == subjects
    assert {route_of(subject) for subject in subjects} == {route}


@pytest.mark.parametrize("subject", ["", "CHORIA_AJ.H.T", "CHORIA_AJ.Q.x", "CHORIA.AJ.H.T.email"])
def test_another_subject_is_no_route(subject: str) -> None:
    with pytest.raises(ValueError, match="is not a handler's subject"):
        route_of(subject)


@pytest.mark.parametrize(
    "reply",
    [
        b"_INBOX.9q8Wx5bZ0VQm1aFvT3kLrN.aB3dE7Xy",
        b"orders",
        b"_R_.x.y",
        "antwort.\u00e4".encode(),
        b"a" * 300,
        b"x$y.$z",
    ],
)
def test_a_plain_reply_subject_is_answered(reply: bytes) -> None:
    assert reply_subjects().match(reply)


@pytest.mark.parametrize(
    "reply",
    [
        b"$JS.API.STREAM.DELETE.ORDERS",
        b"$SYS.REQ.SERVER.PING",
        b"$",
        b"CHORIA_AJ.H.T.email:new",
        b"CHORIA_AJ.T.task",
        b"CHORIA.AJ.H.T.catchall",
        b"",
        b".a",
        b"a.",
        b"a..b",
        b"a.*",
        b"a.>",
        b"a b",
        b"a\tb",
        b"a\x00b",
        b"a\x7f",
        b"a\n",
        b"_INBOX." + b"a" * 1018,
        b"a." * 512 + b"a",
    ],
)
def test_a_reply_subject_that_does_more_than_reach_a_requester_is_not_answered(reply: bytes) -> None:
    assert not reply_subjects().match(reply)


def test_with_prefixes_a_reply_subject_begins_with_one_of_their_words() -> None:
    match = reply_subjects(["_INBOX", "_R_.a+"]).match
    assert match(b"_INBOX.x.y")
    assert match(b"_R_.a+.y")
    for other in (b"_INBOXES.x", b"_INBOX", b"_R_.aa.y", b"orders", b"_INBOX.$.>"):
        assert not match(other)
