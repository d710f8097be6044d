"""Times as options take them."""

from __future__ import annotations

import click
import pytest

from ajhost.cli.options import Duration


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("5m", 300.0),
        ("1.5h", 5400.0),
        ("10 s", 10.0),
        ("250ms", 0.25),
        ("1d", 86_400.0),
        ("30", 30.0),
        (".5", 0.5),
    ],
)
def test_a_time_has_a_unit_or_is_seconds(given: str, seconds: float) -> None:
    assert Duration(min=0).convert(given, None, None) == seconds


@pytest.mark.parametrize("given", ["soon", "", "10 parsecs", "-1s", "5m30s", "2d"])
def test_what_is_no_time_or_out_of_bounds_is_an_error(given: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration(min=0, max=86_400).convert(given, None, None)
