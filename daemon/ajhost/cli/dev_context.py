"""The NATS context that `ajhost dev --context NAME` keeps while it runs, by which `ajc` and `nats` find its server."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ajhost.settings.nats_context import context_file

_MADE_BY = "ajhost dev, process "
"""The beginning of a session's description of its context; the session's pid follows."""


class ContextInUse(Exception):
    """The context exists already and is not a dead session's. The text says whose it is, and what to do."""


@contextlib.contextmanager
def nats_context(name: str, url: str) -> Iterator[Path]:
    """Writes the context, and removes it at the end. Replaces one that a killed session has left.

    :raises ContextInUse: a context of this name exists that no session has written, or whose session runs.
    """
    file = context_file(name, os.environ)
    _check_free(file)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}")
    # the URL may have a password
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as written:
        json.dump({"description": f"{_MADE_BY}{os.getpid()}", "url": url}, written)
    new.replace(file)
    try:
        yield file
    finally:
        if _owner(file) == os.getpid():
            file.unlink(missing_ok=True)


def _check_free(file: Path) -> None:
    if not os.path.lexists(file):
        return
    owner = _owner(file)
    if owner is None:
        raise ContextInUse(f"{file} is there already: give another name to --context, or leave it out")
    if owner != os.getpid() and Path(f"/proc/{owner}").exists():
        raise ContextInUse(f"{file} is of another ajhost dev, process {owner}: give another name to --context")


def _owner(file: Path) -> int | None:
    """Returns the pid of the session that wrote the context; None for any other writer."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        said = str(json.loads(file.read_text()).get("description"))
        if said.startswith(_MADE_BY):
            return int(said.removeprefix(_MADE_BY))
    return None
