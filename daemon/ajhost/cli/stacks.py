"""`ajhost stacks` and `ajhost recycle`: what workers are doing, and workers made anew."""

from __future__ import annotations

from pathlib import Path

import click

from ajhost.cli.common import config_option, report_unreadable, runtime_directory
from ajhost.cli.output import echo, echo_error

EXIT_DONE, EXIT_NOT_FOUND, EXIT_NOTHING = 0, 1, 3
_TIMEOUT = 30.0
_EPILOG = """\b
Examples:
  ajhost stacks
  ajhost stacks 2aXwYqBbD7sJmZ0qkHfVQ9kS1oT
  ajhost stacks --worker 2
\b
Exit status: 0 shown, 1 no such task runs, 3 nothing runs.
"""
_RECYCLE_EPILOG = """\b
Examples:
  ajhost recycle 2
  ajhost recycle
\b
Exit status: 0 they are being replaced, 1 no such worker, 3 nothing runs.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.argument("task", required=False)
@click.option("--worker", type=click.IntRange(min=0), metavar="SLOT", help="Of this worker alone.")
def stacks(config: Path, task: str | None, worker: int | None) -> int:
    """Show what running tasks are doing, without disturbing them.

    For a task on the event loop: its chain of awaits, down to what it waits for. For one in a thread: its stack. A
    worker that hangs writes the stacks of its threads to its log.
    """
    return _ask(config, {"ask": "stacks", "task": task, "slot": worker})


@click.command(epilog=_RECYCLE_EPILOG)
@config_option
@click.argument("slot", type=click.IntRange(min=0), required=False)
def recycle(config: Path, slot: int | None) -> int:
    """Replace a worker in order, or all of them: a new one serves before the old one leaves.

    The old ones finish their tasks. No settings and no code are read anew: see `ajhost reload`.
    """
    return _ask(config, {"ask": "recycle", "slot": slot})


def _ask(config: Path, asked: dict[str, object]) -> int:
    directory = runtime_directory(config)
    from ajhost.roles.host_client import NotRunning, control

    try:
        done, text = control(directory, _TIMEOUT, asked | {"settings": config})
    except NotRunning as error:
        echo_error(str(error))
        return EXIT_NOTHING
    except TimeoutError:
        echo_error(f"no answer within {_TIMEOUT:g} s")
        return EXIT_NOT_FOUND
    except OSError as error:
        report_unreadable(directory, error)
        return EXIT_NOTHING
    if done:
        echo(text)
        return EXIT_DONE
    echo_error(text)
    return EXIT_NOT_FOUND
