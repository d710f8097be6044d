"""`ajhost run`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click

from ajhost.cli.common import load_settings, own_config_option

_EPILOG = """\b
Examples:
  ajhost run
  ajhost run -c ./ajhost.toml
\b
Signals:
  SIGTERM, SIGINT   leave the queue group, finish and answer what is held, exit; twice: hurry
  SIGHUP            reload
\b
Exit status: 0 stopped, 70 could not start, 78 bad configuration (every problem on stderr).
"""


@click.command(epilog=_EPILOG)
@own_config_option
def run(config: Path) -> int:
    """Serve the configured routes, in the foreground."""
    # a reload sees the environment of the start, of which the service manager's part is taken out meanwhile
    environ = dict(os.environ)
    settings = load_settings(config, environ)

    from ajhost.roles.supervisor.main import run as supervise
    from ajhost.settings import environment
    from ajhost.settings.load import load

    for name in environment.names(environ):  # which may be secrets, and are not for handlers
        del os.environ[name]

    return supervise(settings, partial(load, config, environ))
