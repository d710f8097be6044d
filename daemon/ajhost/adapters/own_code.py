"""Which code is this package's own, by the file of its frames."""

from __future__ import annotations

from pathlib import Path

PACKAGE = f"{Path(__file__).parents[1]}/"
"""What the name of each file of ours begins with."""
