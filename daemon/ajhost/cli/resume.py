"""`ajhost resume`: brings a host that was drained back into the queue group; `roles/supervisor/drain.py` does it."""

from __future__ import annotations

from pathlib import Path

import click

from ajhost.cli import exit_status
from ajhost.cli.drain import tell
from ajhost.cli.options import config_option, json_option
from ajhost.cli.running_host import ask_host
from ajhost.cli.status import reader

_EPILOG = """\b
Exit status: 0 the host is back in the queue group, or on its way, 1 refused, 3 nothing runs.
"""


@click.command(epilog=_EPILOG)
@config_option
@json_option
def resume(config: Path, as_json: bool) -> int:
    """Bring a host that was drained back into the queue group."""
    if (status := ask_host(config, {"ask": "resume"}, quiet=as_json)) != exit_status.OK or not as_json:
        return status
    tell(reader(config)(), as_json=True)
    return exit_status.OK
