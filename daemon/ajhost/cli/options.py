"""Options of several commands: `-c FILE`, its default and the loading of it; a time like `10s`; `--json`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import click
from click.core import ParameterSource

from ajhost.cli import exit_status
from ajhost.cli.dev_directory import find_settings
from ajhost.cli.output import CommandFailed
from ajhost.settings.environment import remove_setting_variables
from ajhost.settings.sections import DEFAULT_FILE, Settings

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _absolute_or_found(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    if context.get_parameter_source(parameter.name or "") is ParameterSource.DEFAULT:
        try:
            found = find_settings(Path.cwd())
        except OSError:  # the current directory was removed
            return value
        if found is not None:
            remove_setting_variables(os.environ)  # that host has taken those that it takes into its file
            return found
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

Default: the settings of the `ajhost dev` host that serves the current directory, if one runs, else DEFAULT_FILE.
"""
own_config_option = _config(callback=lambda context, parameter, value: value.absolute())
"""As `config_option`, for commands that read a file and need no running host: the default is always DEFAULT_FILE."""
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def is_named() -> bool:
    """Whether the user named the settings of the present command with `-c`."""
    return click.get_current_context().get_parameter_source("config") is not ParameterSource.DEFAULT


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


class BadConfiguration(CommandFailed):
    """The configuration cannot be used; the text lists every problem."""

    exit_code = exit_status.BAD_CONFIGURATION


def load_settings(config: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads and validates the settings.

    :raises BadConfiguration: with one line for each problem.
    """
    from ajhost.settings.errors import SettingsError
    from ajhost.settings.load import load

    try:
        return load(config, environ)
    except SettingsError as error:
        raise BadConfiguration(str(error) + hint_at_settings_here(config)) from None


def hint_at_settings_here(config: Path) -> str:
    """Returns a hint at ./ajhost.toml if it exists and `config` is the default file, which does not; else no text."""
    here = Path("ajhost.toml")
    # os.path returns False for a directory that this user may not enter; Path.exists raises PermissionError
    if config != DEFAULT_FILE or os.path.exists(config) or not os.path.isfile(here):
        return ""
    none_runs = "" if find_settings(Path.cwd()) else "no `ajhost dev` runs in this directory, and "
    return f"\n{none_runs}./{here} is not read unless it is named: -c {here}"
