"""`ajhost recycle`: asks the host for new workers; `roles/supervisor/recycle.py` decides which are replaced."""

from __future__ import annotations

from pathlib import Path

import click

from ajhost.cli.options import config_option
from ajhost.cli.running_host import ask_host

_EPILOG = """\b
Examples:
  ajhost recycle 2
  ajhost recycle
\b
Exit status: 0 they are being replaced, 1 no such worker, 3 nothing runs.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.argument("slot", type=click.IntRange(min=0), required=False)
def recycle(config: Path, slot: int | None) -> int:
    """Replace a worker in order, or all of them: a new one serves before the old one leaves.

    The old ones finish their tasks. No settings and no code are read anew: see `ajhost reload`.
    """
    return ask_host(config, {"ask": "recycle", "slot": slot})
