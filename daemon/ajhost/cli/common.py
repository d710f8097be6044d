"""Shared by the commands: the option `-c`, errors of the configuration, requests to the running host."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ajhost.cli import exit_status
from ajhost.cli.dev_place import find_settings
from ajhost.cli.output import echo, echo_error
from ajhost.settings.values import DEFAULT_FILE, Settings

_ANSWER_LIMIT = 30.0
"""Seconds that a host may take to say what it has done."""

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


def runtime_directory(config: Path) -> Path:
    """The runtime directory that the configuration names, even if the configuration has errors elsewhere.

    :raises BadConfiguration: the file cannot be read, or its `[runtime]` table is wrong.
    """
    from ajhost.settings.errors import InvalidValue
    from ajhost.settings.runtime import runtime_directory as find

    try:
        return find(config)
    except OSError as error:
        hint = (
            "; ask as root or as a member of the host's group" if isinstance(error, PermissionError) else ""
        )
        raise BadConfiguration(f"{error.filename or config}: {error.strerror or error}{hint}") from None
    except InvalidValue as error:
        raise BadConfiguration(f"{config}: {error}") from None


def unreadable(directory: Path, error: OSError) -> str:
    """Why a runtime directory tells nothing."""
    hint = "; ask as root or as the user that the host runs as" if isinstance(error, PermissionError) else ""
    return f"{error.filename or directory}: {error.strerror or error}{hint}"


def is_named() -> bool:
    """Whether somebody named the settings of the present command: by `-c`, not by default."""
    source = click.get_current_context().get_parameter_source("config")
    return source is not ParameterSource.DEFAULT


def wrong_host(directory: Path, config: Path) -> str | None:
    """An error text if the host in `directory` was started with another file than `config`; else None."""
    from ajhost.roles.host_client import settings_of

    runs_on = settings_of(directory)
    if runs_on is None or os.path.realpath(runs_on) == os.path.realpath(config):
        return None
    return f"the host on {directory} runs on {runs_on}, not on {config}"


def ask_host(
    config: Path,
    asked: dict[str, object],
    *,
    limit: float = _ANSWER_LIMIT,
    late: str = "no answer within {:g} s: `ajhost status` says whether the supervisor hangs",
    quiet: bool = False,
) -> int:
    """Sends a request to the running host's control socket, and prints its answer.

    :param limit: how long it may take (s), and `late` what is printed after that.
    :param quiet: prints nothing if the host has done it.
    :returns: the exit status: 0 done, 1 refused or no answer in time, 3 no host runs.
    """
    directory = runtime_directory(config)
    from ajhost.roles.host_client import NotRunning, control

    try:
        done, text = control(directory, limit, asked | {"settings": config})
    except NotRunning as error:
        echo_error(str(error))
        return exit_status.NO_HOST
    except TimeoutError:
        echo_error(late.format(limit))
        return exit_status.NO
    except OSError as error:
        echo_error(unreadable(directory, error))
        return exit_status.NO_HOST
    if done:
        if not quiet:
            echo(text)
        return exit_status.OK
    echo_error(text)
    return exit_status.NO
