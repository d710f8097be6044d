"""`ajhost stacks`: asks the host for the stacks of its running tasks; `roles/supervisor/stacks.py` gets them."""

from __future__ import annotations

from pathlib import Path

import click

from ajhost.cli.options import config_option
from ajhost.cli.running_host import ask_host

_EPILOG = """\b
Examples:
  ajhost stacks
  ajhost stacks 2aXwYqBbD7sJmZ0qkHfVQ9kS1oT
  ajhost stacks --worker 2
  ajhost stacks --all
\b
Of the tasks that reach their deadlines, one a minute for each route has its stack in the log by itself.
\b
Exit status: 0 shown, 1 no such task runs, 3 nothing runs.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.argument("task", required=False)
@click.option("--worker", type=click.IntRange(min=0), metavar="SLOT", help="Of this worker alone.")
@click.option("--all", "every", is_flag=True, help="Of every running task, which is the default.")
def stacks(config: Path, task: str | None, worker: int | None, every: bool) -> int:
    """Show what running tasks are doing, without disturbing them.

    For a task on the event loop: its chain of awaits, down to what it waits for. For one in a thread: its stack. Of a
    worker that hangs, in C code too: the stacks of its threads. While handlers are imported: where that stands.
    """
    if every and (task is not None or worker is not None):
        raise click.UsageError("--all is without a task and a worker")
    return ask_host(config, {"ask": "stacks", "task": task, "slot": worker})
