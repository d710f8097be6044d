"""`ajhost cancel`: asks the host to cancel one task, which `roles/supervisor/cancel.py` does."""

from __future__ import annotations

from pathlib import Path

import click

from ajhost.cli.options import config_option
from ajhost.cli.running_host import ask_host

_EPILOG = """\b
Examples:
  ajhost cancel 2aXwYqBbD7sJmZ0qkHfVQ9kS1oT
  ajhost cancel 2aXwYqBbD7sJmZ0qkHfVQ9kS1oT --terminate --reason "sent by hand"
\b
Exit status: 0 cancelled, 1 no such task runs or waits on this host, 3 nothing runs.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.argument("task")
@click.option("--terminate", is_flag=True, help="No further try: AJ-Terminate in place of AJ-Error.")
@click.option("--reason", default="by an operator", show_default=True, help="For the task's last error.")
def cancel(config: Path, task: str, terminate: bool, reason: str) -> int:
    """Answer for a task now, and cancel it.

    The router gets `cancelled:` with the reason at once. Then the handler is cancelled; one in a thread runs on, and
    its worker is replaced. A task that waits is not run.
    """
    return ask_host(config, {"ask": "cancel", "task": task, "terminate": terminate, "reason": reason})
