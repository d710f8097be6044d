"""Which code is this package's own, and which an application's, by the file of its frames."""

from __future__ import annotations

import sysconfig
from pathlib import Path

PACKAGE = f"{Path(__file__).parents[1]}/"
"""What the name of each file of ours begins with."""
_STDLIB = f"{sysconfig.get_path('stdlib')}/"


def is_library(file: str) -> bool:
    """Whether a file of code is Python's, a library's or the host's, and no application's."""
    return file.startswith((PACKAGE, _STDLIB)) or "-packages/" in file
