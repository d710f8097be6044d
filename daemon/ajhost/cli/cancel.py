"""`ajhost cancel`."""

from __future__ import annotations

from pathlib import Path

import click

from ajhost.cli.common import config_option, report_unreadable, runtime_directory
from ajhost.cli.output import echo, echo_error

EXIT_CANCELLED, EXIT_NOT_FOUND, EXIT_NOTHING = 0, 1, 3
_TIMEOUT = 30.0
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
    directory = runtime_directory(config)
    from ajhost.roles.host_client import NotRunning, control

    asked = {"ask": "cancel", "settings": config, "task": task, "terminate": terminate, "reason": reason}
    try:
        done, text = control(directory, _TIMEOUT, asked)
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
        return EXIT_CANCELLED
    echo_error(text)
    return EXIT_NOT_FOUND
