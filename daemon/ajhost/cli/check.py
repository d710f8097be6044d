"""`ajhost check`: reports every problem that a start would meet, and serves nothing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ajhost.cli import exit_status
from ajhost.cli.configuration import load_settings
from ajhost.cli.options import own_config_option
from ajhost.cli.output import columns, echo, echo_error, to_json
from ajhost.settings.configuration_files import ignored_files
from ajhost.settings.sections import Settings

if TYPE_CHECKING:
    from ajhost.adapters.nats.connect_check import Findings
    from ajhost.roles.start_rehearsal import Rehearsal

_EPILOG = """\b
Examples:
  ajhost check
  ajhost check -c ./ajhost.toml
  ajhost check --connect       also: does NATS let this host in, is it in the group of the others?
  ajhost check --show | jq .workers
  sudo ajhost check            in the sandbox and as the user of the unit that runs this file
  sudo ajhost check --user ada as that user, where there is no unit
\b
Exit status: 0 all is well, 78 something is not (every problem on stderr).
"""


@click.command(epilog=_EPILOG)
@own_config_option
@click.option("--show", is_flag=True, help="Print the settings, defaults included, as JSON without secrets.")
@click.option(
    "--connect",
    is_flag=True,
    help="Also log in at each NATS server, try to subscribe and to publish answers, and look for hosts of another "
    "queue group. No request is taken.",
)
@click.option(
    "--user",
    metavar="NAME",
    help="Check as this user; for root. Default: as the unit that runs FILE, if there is one.",
)
def check(config: Path, show: bool, connect: bool, user: str | None) -> int:
    """Rehearse a start: read the settings, import the handlers, make one worker and end it.

    What a start would say is said, and nothing that runs is touched: the worker is in no queue group, and NATS is not
    contacted, unless --connect asks for it. Root imports no handler where a unit runs this file: the check happens in
    that unit's sandbox.
    """
    from ajhost.adapters.linux import signal_actions
    from ajhost.cli import check_in_sandbox, run_as_user, systemd_unit

    signal_actions.reset_signals()  # as `run` does
    in_unit = check_in_sandbox.IN_UNIT in os.environ
    given = (("--show", show), ("--connect", connect))
    if not in_unit:
        if run_as_user.is_root() and user is None and (unit := systemd_unit.unit_of(config)) is not None:
            return check_in_sandbox.check_in_sandbox(unit, ["-c", str(config), *(f for f, on in given if on)])
        user = run_as_user.assume(user, config)
    settings = load_settings(config)
    if run_as_user.is_root() and user is None:
        echo_error(f"{settings.origin}: warning: {run_as_user.AS_ROOT}")
    for path in ignored_files(config) if settings.has_file else ():
        echo_error(f"{path}: warning: it is not read: the names of drop-ins end in .toml")
    # systemd makes a unit's runtime directory at its start, and removes it at its end
    found = _rehearse(settings, runtime=not in_unit and systemd_unit.unit_of(config) is None)
    tried = asyncio.run(_try_servers(settings)) if connect else None
    problems = [*found.problems, *(tried.problems if tried else ())]
    for warning in found.warnings:
        echo_error(f"{settings.origin}: warning: the imports left something behind: {warning}")
    for warning in tried.warnings if tried else ():
        echo_error(f"{settings.origin}: warning: {warning}")
    if problems:
        for problem in problems:
            echo_error(f"{settings.origin}: {problem}")
        return exit_status.BAD_CONFIGURATION
    if show:
        from ajhost.settings.shown_settings import redacted

        echo(to_json(redacted(settings), 2))
    else:
        echo(_table(settings, {handler.route: handler.kind for handler in found.handlers}))
    return 0


def _rehearse(settings: Settings, *, runtime: bool) -> Rehearsal:
    from ajhost.adapters.linux import os_error_texts
    from ajhost.roles.start_rehearsal import Rehearsal, rehearse

    try:
        return asyncio.run(rehearse(settings, runtime=runtime))
    except OSError as error:  # the event loop itself could not be made
        return Rehearsal((), (), (f"cannot rehearse: {os_error_texts.described(error)}",))


async def _try_servers(settings: Settings) -> Findings:
    from ajhost.adapters.nats.connect_check import try_servers
    from ajhost.protocol.subjects import host_subjects

    subjects = host_subjects([h.route for h in settings.handlers], settings.nats.catchall)
    return await try_servers(settings.nats, subjects, settings.runtime.directory)


def _table(settings: Settings, kinds: dict[str, str]) -> str:
    rows: list[tuple[object, ...]] = [("ROUTE", "TARGET", "RUNS", "TIMEOUT")]
    for handler in settings.handlers:
        timeout = "the task's deadline" if handler.timeout is None else f"{handler.timeout:g} s"
        rows.append((handler.route or '""', handler.target, kinds[handler.route], timeout))
    count = len(settings.handlers)
    return f"{settings.origin}: good, {count} handler{'s' if count > 1 else ''}\n\n{columns(rows)}"
