"""Sweeps: of cases of one kind some run always, the rest is `long`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def sweep(cases: Iterable[Any], *always: Any) -> list[Any]:
    """The cases for `parametrize`, all `long` but for those that run `always`."""
    made = [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.long] * (case not in always))
        for case in cases
    ]
    assert sum(not param.marks for param in made) == len(always), "a case that runs always is none of the sweep"
    return made
