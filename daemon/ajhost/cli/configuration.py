"""The configuration that a command is about: the option `-c`, and what is wrong with the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ajhost.cli.dev_directory import find_settings
from ajhost.settings.values import DEFAULT_FILE, Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])


class BadConfiguration(Exception):
    """The configuration cannot be used; the text lists every problem."""


def config_option(command: _Command) -> _Command:
    """Adds `-c FILE`; the parameter `config` is an absolute path.

    Default: the settings of the `ajhost dev` host that serves the current directory, if one runs, else DEFAULT_FILE.
    """
    return _config_option(_found)(command)


def own_config_option(command: _Command) -> _Command:
    """As `config_option`, for commands that read a file and ask no running host: the default is always DEFAULT_FILE."""
    return _config_option(_absolute)(command)


def _config_option(
    callback: Callable[[click.Context, click.Parameter, Path], Path],
) -> Callable[[_Command], _Command]:
    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path, readable=False),
        default=DEFAULT_FILE,
        show_default=True,
        metavar="FILE",
        callback=callback,
        help="The configuration; conf.d/*.toml beside it is merged into it.",
    )


def _absolute(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    return value.absolute()


def _found(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    if context.get_parameter_source(parameter.name or "") is ParameterSource.DEFAULT:
        try:
            return find_settings(Path.cwd()) or value.absolute()
        except OSError:  # the current directory was removed
            return value
    return value.absolute()


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
    """A line that names ./ajhost.toml, if that exists, and `config` is the default and does not; else empty."""
    here = Path("ajhost.toml")
    # of os.path, whose answers are false where we may not look (Path.exists raises PermissionError)
    if config != DEFAULT_FILE or os.path.exists(config) or not os.path.isfile(here):
        return ""
    none_runs = "" if find_settings(Path.cwd()) else "no `ajhost dev` runs in this directory, and "
    return f"\n{none_runs}./{here} is not read unless it is named: -c {here}"


def is_named() -> bool:
    """Whether somebody named the settings of the present command: by `-c`, not by default."""
    source = click.get_current_context().get_parameter_source("config")
    return source is not ParameterSource.DEFAULT
