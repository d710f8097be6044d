"""`ajhost top`: shows the host live. `top_screen.py` has the screen and its keys."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ajhost.cli import exit_status
from ajhost.cli.options import Duration, config_option
from ajhost.cli.output import echo_error
from ajhost.cli.status import print_once, reader

_EPILOG = """\b
Examples:
  ajhost top
  ajhost top --interval 0.2
\b
Exit status: 0 when it is ended, 3 nothing runs; without a terminal that of `ajhost status`.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.option(
    "--interval", type=Duration(0.1, 3600), default="1s", show_default=True, metavar="TIME", help="How often it looks."
)
def top(config: Path, interval: float) -> int:
    """Show what `ajhost status` shows, live; sort and filter it by keys (? names them).

    Without a terminal it shows the same as `ajhost status`, once. The host is read only while it runs.
    """
    read = reader(config)
    first = read()
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        return print_once(first)
    if (terminal := os.environ.get("TERM", "")) in ("", "dumb", "unknown"):
        echo_error(
            f"the terminal ({terminal or 'no TERM'}) cannot move its cursor: shown once, as `ajhost status` does"
        )
        return print_once(first)
    from ajhost.cli.top_screen import Screen  # prompt_toolkit, which no other command needs

    Screen(read, first, interval).run()
    return exit_status.OK
