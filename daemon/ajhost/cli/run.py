"""`ajhost run`: becomes the supervisor, in the foreground. Decides which user root becomes (`run_as_user.py` does it).
Hides the variables that are settings from handlers (`settings/environment.py`).
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click

from ajhost.cli import exit_status
from ajhost.cli.options import load_settings, own_config_option

_EPILOG = """\b
Examples:
  ajhost run
  ajhost run -c ./ajhost.toml
  ajhost run --user ada        root gives up its rights first
\b
Signals:
  SIGTERM, SIGINT   leave the queue group, finish and answer what is held, exit; twice: hurry
  SIGHUP            reload
\b
Exit status: 0 stopped, 70 could not start, 78 bad configuration (every problem on stderr).
"""


@click.command(epilog=_EPILOG)
@own_config_option
@click.option(
    "--user",
    help="Run as this user, a name or UID:GID. Only root may; default: `user` in [runtime], or the user of the unit "
    "that runs FILE.",
)
def run(config: Path, user: str | None) -> int:
    """Serve the configured routes, in the foreground.

    Handlers are imported and run by the user who starts this; root should name another one.
    """
    from ajhost.adapters.linux import signal_actions
    from ajhost.cli import run_as_user, systemd_unit

    signal_actions.reset_signals()
    if run_as_user.is_root() and user is None and (unit := systemd_unit.unit_of(config)) is not None:
        user = systemd_unit.user_of(unit) or None
    user = run_as_user.assume(user, config)
    # a reload sees the environment of the start; the supervisor takes systemd's variables out of os.environ
    environ = dict(os.environ)
    settings = load_settings(config, environ)

    from ajhost.roles.supervisor.main import run as supervise
    from ajhost.settings.environment import remove_setting_variables
    from ajhost.settings.load import load

    remove_setting_variables(os.environ)  # they may be secrets, which handlers must not see
    warning = run_as_user.AS_ROOT if run_as_user.is_root() and user is None else None
    started = supervise(settings, partial(load, config, environ), warning)
    return exit_status.OK if started else exit_status.CANNOT_START
