"""`ajhost reload`: asks the host for new settings and code; `roles/supervisor/reload.py` takes or rejects them."""

from __future__ import annotations

from pathlib import Path

import click

from ajhost.cli import exit_status
from ajhost.cli.options import BadConfiguration, Duration, config_option
from ajhost.cli.output import echo_error
from ajhost.cli.running_host import ask_host

_EPILOG = """\b
Examples:
  ajhost reload
  ajhost check && ajhost reload
\b
Exit status: 0 the new generation serves, 1 rejected and nothing is changed (reason on stderr), 3 nothing runs.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.option(
    "--timeout",
    type=Duration(min=0, min_open=True),
    metavar="TIME",
    default="10m",
    show_default=True,
    help="How long to wait for the decision.",
)
def reload(config: Path, timeout: float) -> int:
    """Bring new settings and handler code into service.

    They are proven first; then, slot by slot, a new worker serves before the old one leaves. Returns when that is
    decided. If anything is wrong, the old generation serves on.
    """
    try:
        return ask_host(
            config,
            {"ask": "reload"},
            limit=timeout,
            late="not decided within {:g} s; the log of the host will say how it ends",
        )
    except BadConfiguration as error:
        echo_error(f"rejected, nothing was reloaded: {error}")
        return exit_status.NO
