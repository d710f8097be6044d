"""The NATS subjects on which routers ask for a route, both of the catch-all, and the reply subjects that a host may
answer on: none with `$` or of asyncjobs' own, by `reply_prefixes`, at most 1,024 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_PREFIX = "CHORIA_AJ.H.T."
_CATCH_ALLS = ("CHORIA_AJ.H.T.catchall", "CHORIA.AJ.H.T.catchall")

LONGEST_REPLY_SUBJECT = 1024
"""Bytes. A server ends the connection of a client at each line of more than 4,096 (`max_control_line`); another server
of its cluster may take longer ones.
"""
_PLAIN_WORD = rb"[^\x00-\x20\x7f*>.]++"
_NOT_FOR_REPLIES = rb"\$|CHORIA[_.]AJ\."
"""A message to a subject with `$` is a command to the server (`$JS.API.STREAM.DELETE...`), with this host's rights. The
others are asyncjobs' own: its handlers, its queues and its task store, which would take a reply for a task.
"""


def subjects_of(route: str) -> tuple[str, ...]:
    """Returns the subjects on which a router asks for `route`; for the catch-all `""` both spellings.

    The documentation of asyncjobs and its source differ in the catch-all's name, so the host serves both. A route named
    `catchall` has the same subject as the catch-all.
    """
    return (_PREFIX + route,) if route else _CATCH_ALLS


def host_subjects(routes: Iterable[str], catchall: bool) -> list[str]:
    """Returns the subjects of a host that serves `routes`. `catchall`: with those of catch-all routers."""
    subjects = [subject for route in routes for subject in subjects_of(route)]
    return [*dict.fromkeys((*subjects, *_CATCH_ALLS))] if catchall else subjects


def route_of(subject: str) -> str:
    """Returns the route of `subject`, `""` for either catch-all. Raises ValueError for any other subject."""
    if subject in _CATCH_ALLS:
        return ""
    if not subject.startswith(_PREFIX):
        raise ValueError(f"{subject!r} is not a handler's subject")
    return subject[len(_PREFIX) :]


def reply_subjects(prefixes: Sequence[str] = ()) -> re.Pattern[bytes]:
    """Matches the reply subjects that the host answers: plain ones, by which a message only reaches a requester, of
    `LONGEST_REPLY_SUBJECT` bytes at most.

    With `prefixes` (first words of a subject), only those that begin with one of them. Any client that may publish a
    request chooses its reply subject, and the host publishes to that with its own rights.
    """
    among = b"|".join(re.escape(prefix.encode()) + rb"\." for prefix in prefixes)
    wanted = b"(?=%b)" % among if among else b""
    short = rb"(?=.{,%d}\Z)" % LONGEST_REPLY_SUBJECT
    return re.compile(rb"(?!%b)%b%b%b(?:\.%b)*+\Z" % (_NOT_FOR_REPLIES, short, wanted, _PLAIN_WORD, _PLAIN_WORD))
