"""`ajhost reload`."""

from __future__ import annotations

from pathlib import Path

import click

from ajhost.cli import exit_status
from ajhost.cli.common import BadConfiguration, config_option, runtime_directory, unreadable
from ajhost.cli.output import echo, echo_error

_EPILOG = """\b
Examples:
  ajhost reload
  ajhost check && ajhost reload
\b
Exit status: 0 the new generation serves, 1 rejected and the old one serves on (reason on stderr),
3 nothing runs.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds to wait for the decision.",
)
def reload(config: Path, timeout: float) -> int:
    """Bring new settings and handler code into service.

    They are proven first; then, slot by slot, a new worker serves before the old one leaves. Returns when that is
    decided. If anything is wrong, the old generation serves on.
    """
    try:
        directory = runtime_directory(config)
    except BadConfiguration as error:
        echo_error(f"rejected, nothing was reloaded: {error}")
        return exit_status.NO
    from ajhost.roles.host_client import NotRunning
    from ajhost.roles.host_client import reload as ask

    try:
        taken, text = ask(directory, timeout, config)
    except NotRunning as error:
        echo_error(str(error))
        return exit_status.NO_HOST
    except TimeoutError:
        echo_error(f"not decided within {timeout:g} s; the log of the host will say how it ends")
        return exit_status.NO
    except OSError as error:
        echo_error(unreadable(directory, error))
        return exit_status.NO_HOST
    if taken:
        echo(text)
        return exit_status.OK
    echo_error(f"rejected, the old generation serves on:\n{text}")
    return exit_status.NO
