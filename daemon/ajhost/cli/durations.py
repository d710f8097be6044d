"""Times as options take them: `10s`, `5m`, `1.5h`; a number alone is seconds."""

from __future__ import annotations

import re

import click

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(click.FloatRange):
    """Seconds within bounds."""

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:  # as `click.ParamType`
        if isinstance(value, str) and (found := _DURATION.fullmatch(value)) is not None:
            value = float(found[1]) * _UNITS[found[2]]
        try:
            seconds = float(value)
        except ValueError:
            allowed = "a number with ms, s, m, h or d, like 10s"
            self.fail(f"{value!r} is no duration; allowed: {allowed}", param, ctx)
        return float(super().convert(seconds, param, ctx))
