"""Checks `python.interpreter`, and the entries of `python.path`: directories and archives of modules."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

from ajhost.settings.errors import InvalidValue
from ajhost.settings.secret_files import Files, absent, as_it_is, kind


def interpreter(files: Files, name: str) -> Path:
    """Returns the path of an executable. Links are kept, since a virtual environment's python is a link and finds the
    environment by its own path.
    """
    allowed = "the path of a Python interpreter, like /usr/bin/python3"
    path, mode = _found(files, name, allowed)
    if not stat.S_ISREG(mode):
        raise InvalidValue(f"{path}, {kind(mode)}", allowed)
    if not os.access(path, os.X_OK):
        raise InvalidValue(f"{path}, which cannot be executed", allowed)
    return path


def importable(files: Files, name: str) -> Path:
    """Returns an entry of `sys.path`: a directory, or an archive."""
    allowed = "a directory, or an archive, of Python modules"
    path, mode = _found(files, name, allowed)
    if stat.S_ISREG(mode) and not zipfile.is_zipfile(path):
        raise InvalidValue(f"{path}, a file and no archive", allowed)
    return path


def _found(files: Files, name: str, allowed: str) -> tuple[Path, int]:
    path = files.directory / name  # not among the credentials
    try:
        return path, path.stat().st_mode
    except (OSError, ValueError) as error:
        raise InvalidValue(absent(name, path, error), allowed + as_it_is(name)) from None
