"""`ajhost attempts`: lists the last attempts that did not complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ajhost.cli import exit_status
from ajhost.cli.options import config_option, is_named, json_option
from ajhost.cli.output import columns, echo, echo_error, moment, to_json
from ajhost.cli.running_host import NoHost, asking, check_meant, runtime_directory

_EPILOG = """\b
Examples:
  ajhost attempts
  ajhost attempts 2a6kBWzRcZ9ZRyP1mC3rWpyTNjE
  ajhost attempts --type email:new --reason 'worker died'
\b
Exit status: 0 also when there is none, 3 no host has run, or the files may not be read.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.argument("task", required=False)
@click.option("--type", "task_type", metavar="TYPE", help="Only tasks of this type.")
@click.option("--reason", metavar="WORD", help="Only those whose answer begins with this word, like 'worker died'.")
@json_option
def attempts(config: Path, task: str | None, task_type: str | None, reason: str | None, as_json: bool) -> int:
    """Show the last 200 attempts that did not complete, the newest first; of one task, if it is named.

    They are kept in files, so it also shows what came before a crash, and when no host runs. Older ones are in the log.
    """
    directory = runtime_directory(config)
    from ajhost.adapters.linux.runtime_directory import is_locked
    from ajhost.protocol.reasons import REASONS
    from ajhost.roles.control_client import view_attempts
    from ajhost.roles.recent_attempts import DIRECTORY, recent_attempts

    with asking(directory):
        try:
            runs, kept = is_locked(directory), directory / DIRECTORY
            if runs and is_named():
                check_meant(directory, config)
            if runs and not kept.is_dir():  # the first start is under way
                every = []
            else:
                # raises PermissionError for the directory; `recent_attempts` skips files that it may not read
                next(kept.iterdir(), None)
                every = recent_attempts(directory)
        except FileNotFoundError:
            raise NoHost(f"no ajhost has run on {directory}") from None
        except PermissionError:  # a member of the host's group, whom the view socket serves
            every = view_attempts(directory)
    wanted = {"id": task, "type": task_type, "reason": reason and reason.removesuffix(":")}
    found = [a for a in every if all(value in (None, a[name]) for name, value in wanted.items())]
    if as_json:
        echo(to_json(found))
    elif found:
        echo(columns([("WHEN", "TASK", "TYPE", "TRY", "OUTCOME", "REASON", "TEXT"), *map(_row, found)]))
    elif wanted["reason"] not in (None, *REASONS):
        echo_error(f"no answer begins with {wanted['reason']!r}; there are {', '.join(REASONS)}")
    else:
        asked_for = " that is asked for" if any(wanted.values()) else ""
        echo_error(f"no attempt{asked_for} ended otherwise than completed")
    return exit_status.OK


def _row(attempt: dict[str, Any]) -> list[object]:
    text = attempt["text"].removeprefix(f"{attempt['reason']}: ")
    shown = attempt | {"at": moment(attempt["at"]), "tries": attempt["tries"] or "-", "text": text}
    return [shown[name] for name in ("at", "id", "type", "tries", "outcome", "reason", "text")]
