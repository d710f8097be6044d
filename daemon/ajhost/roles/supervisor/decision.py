"""What became of something that was asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it was done, and why (not)."""

    taken: bool
    text: str
