"""Loads the settings of a command, or ends it with the problems of their file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ajhost.cli import exit_status
from ajhost.cli.dev_directory import find_settings
from ajhost.cli.output import CommandFailed
from ajhost.settings.sections import DEFAULT_FILE, Settings


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
