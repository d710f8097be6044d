"""The directory of a host of `ajhost dev`, where other commands of the same user find the host."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

SETTINGS = "ajhost.toml"
"""The settings file in a host's directory."""
_PROJECT = "project"


def make_place(project: Path) -> Path:
    """Makes the directory for a host that serves `project`, and removes the directories of hosts that have ended.

    :raises OSError: it cannot be made, or the place belongs to another user.
    """
    base = _base()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise OSError(f"{base} is not this user's alone: remove it")
    for other in base.iterdir():
        if not _lives(other):
            shutil.rmtree(other, ignore_errors=True)
    place = base / str(os.getpid())
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    (place / _PROJECT).write_text(str(project.resolve()))
    return place


def find_settings(directory: Path) -> Path | None:
    """Returns the settings file of the running host whose project has `directory`; of several, the innermost one's."""
    found: list[tuple[int, Path]] = []
    with contextlib.suppress(OSError):
        for place in _base().iterdir():
            project = Path((place / _PROJECT).read_text())
            if _lives(place) and directory.resolve().is_relative_to(project) and (place / SETTINGS).exists():
                found.append((len(project.parts), place / SETTINGS))
    return max(found)[1] if found else None


def _base() -> Path:
    # a short path, since that of a socket has at most 107 bytes (unix(7)); a tmpfs if there is one
    shared = Path("/dev/shm")
    directory = shared if os.access(shared, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    return directory / f"ajhost-dev-{os.geteuid()}"


def _lives(place: Path) -> bool:
    return place.name.isdecimal() and Path("/proc", place.name).exists()
