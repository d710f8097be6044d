"""Tells code of this package and of libraries from an application's, by the file of a frame."""

from __future__ import annotations

import sysconfig
from pathlib import Path

PACKAGE = f"{Path(__file__).parents[1]}/"
"""The prefix of the names of this package's files."""
_STDLIB = f"{sysconfig.get_path('stdlib')}/"


def is_library(file: str) -> bool:
    """Whether a file of code is Python's, a library's or the host's, and no application's."""
    return file.startswith((PACKAGE, _STDLIB)) or "-packages/" in file
