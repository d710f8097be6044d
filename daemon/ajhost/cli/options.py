"""Options of several commands: the settings file, by which a host is found, a time, JSON in place of text."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import click
from click.core import ParameterSource

from ajhost.cli.dev_directory import find_settings
from ajhost.settings.sections import DEFAULT_FILE

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _absolute(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    return value.absolute()


def _absolute_or_found(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    if context.get_parameter_source(parameter.name or "") is ParameterSource.DEFAULT:
        try:
            return find_settings(Path.cwd()) or value.absolute()
        except OSError:  # the current directory was removed
            return value
    return value.absolute()


_config = partial(
    click.option,
    "-c",
    "--config",
    type=click.Path(path_type=Path, readable=False),
    default=DEFAULT_FILE,
    show_default=True,
    metavar="FILE",
    help="The configuration; conf.d/*.toml beside it is merged into it.",
)
config_option = _config(callback=_absolute_or_found)
"""`-c FILE`; the parameter `config` is an absolute path.

Default: the settings of the `ajhost dev` host that serves the current directory, if one runs, else DEFAULT_FILE."""
own_config_option = _config(callback=_absolute)
"""As `config_option`, for commands that read a file and need no running host: the default is always DEFAULT_FILE."""
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def is_named() -> bool:
    """Whether the user named the settings of the present command with `-c`."""
    source = click.get_current_context().get_parameter_source("config")
    return source is not ParameterSource.DEFAULT


class Duration(click.FloatRange):
    """Seconds within bounds, as `10s`, `5m`, `1.5h`; a number alone is seconds."""

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
