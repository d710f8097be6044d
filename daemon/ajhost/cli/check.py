"""`ajhost check`: reports every problem that a start would meet (`roles/start_rehearsal.py` finds them, with
`--connect` `adapters/nats/connect_check.py`, too); for root it runs in the unit's sandbox. Masks secrets for `--show`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ajhost.cli import exit_status
from ajhost.cli.options import load_settings, own_config_option
from ajhost.cli.output import columns, echo, echo_error, to_json
from ajhost.cli.systemd_unit import BOOTED, problems_of, properties, service_lines, systemctl, warnings_of
from ajhost.protocol.secret_masking import MASK, without_userinfo
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
    "--user", metavar="NAME", help="Check as this user; for root. Default: as the unit that runs FILE, if there is one."
)
def check(config: Path, show: bool, connect: bool, user: str | None) -> int:
    """Rehearse a start: read the settings, import the handlers, make one worker and end it.

    What a start would say is said, and nothing that runs is touched: the worker is in no queue group, and NATS is not
    contacted, unless --connect asks for it. Root imports no handler where a unit runs this file: the check happens in
    that unit's sandbox.
    """
    from ajhost.adapters.linux import signal_actions
    from ajhost.cli import run_as_user, systemd_unit

    signal_actions.reset_signals()  # as `run` does
    in_unit = _IN_UNIT in os.environ
    if not in_unit:
        if run_as_user.is_root() and user is None and (unit := systemd_unit.unit_of(config)) is not None:
            flags = [flag for flag, given in (("--show", show), ("--connect", connect)) if given]
            return check_in_sandbox(unit, ["-c", str(config), *flags])
        user = run_as_user.assume(user, config)
    settings = load_settings(config)
    if run_as_user.is_root() and user is None:
        echo_error(f"{settings.origin}: warning: {run_as_user.AS_ROOT}")
    for path in ignored_files(config) if settings.has_file else ():
        echo_error(f"{path}: warning: it is not read: the names of drop-ins end in .toml")
    # systemd makes a unit's runtime directory at its start, and removes it at its end
    found = _rehearse(settings, runtime=not in_unit and systemd_unit.unit_of(config) is None)
    tried = _try_servers(settings) if connect else None
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
        echo(to_json(without_secrets(settings), 2))
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


def _try_servers(settings: Settings) -> Findings:
    from ajhost.adapters.nats.connect_check import try_servers
    from ajhost.protocol.subjects import host_subjects

    subjects = host_subjects([h.route for h in settings.handlers], settings.nats.catchall)
    return asyncio.run(try_servers(settings.nats, subjects, settings.runtime.directory))


def without_secrets(settings: Settings) -> dict[str, Any]:
    """Returns the settings for JSON, without the secrets of keys and addresses."""
    shown = asdict(settings)
    nats = shown["nats"]
    nats["servers"] = [without_userinfo(server) for server in nats["servers"]]
    for key in ("password", "token"):
        if nats[key] is not None:
            nats[key] = MASK
    return shown


def _table(settings: Settings, kinds: dict[str, str]) -> str:
    rows: list[tuple[object, ...]] = [("ROUTE", "TARGET", "RUNS", "TIMEOUT")]
    for handler in settings.handlers:
        timeout = "the task's deadline" if handler.timeout is None else f"{handler.timeout:g} s"
        rows.append((handler.route or '""', handler.target, kinds[handler.route], timeout))
    count = len(settings.handlers)
    return f"{settings.origin}: good, {count} handler{'s' if count > 1 else ''}\n\n{columns(rows)}"


# -- in the sandbox of a systemd unit ----------------------------------------------------------------------------

_IN_UNIT = "_AJHOST_CHECK_IN_UNIT"
"""The environment variable by which a check knows that it runs in the sandbox."""
_NOT_TAKEN = re.compile(
    r"(Exec\w*|Type|Restart\w*|WatchdogSec|NotifyAccess|RuntimeDirectory\w*|FileDescriptorStoreMax|Timeout\w*|"
    r"Standard\w*|SyslogIdentifier|KillMode|OOMPolicy|RemainAfterExit|GuessMainPID|PIDFile|BusName|Sockets)"
)
"""Lines of the service that the check's unit must not have. With RuntimeDirectory= the end of the check would remove
the directory of the running service.
"""
_SET_UP = {
    9: "killed, for memory most likely (MemoryMax=)",
    200: "WorkingDirectory= cannot be entered",
    203: "the program of ExecStart= cannot be executed (NoExecPaths=, InaccessiblePaths=)",
    209: "StandardOutput= or StandardError= cannot be opened",
    216: "Group= or SupplementaryGroups= names no group",
    217: "User= names no user",
    226: "a path of ReadWritePaths=, BindPaths=, RootDirectory= or the like cannot be mounted",
    233: "RuntimeDirectory= cannot be made",
    238: "StateDirectory= cannot be made",
    239: "CacheDirectory= cannot be made",
    243: "a credential of LoadCredential= cannot be read",
}
"""The likely cause by the exit status of systemd's own set-up (systemd.exec(5), "Process Exit Codes")."""
_NO_REASON = re.compile(
    r"Main process exited|Failed with result|^Start|^Failed to start|Deactivated|^Finished|Consumed"
)
"""Lines of systemd that say no more than the status."""


def check_in_sandbox(unit: str, arguments: Sequence[str]) -> int:
    """Runs `ajhost check ARGUMENTS` in a transient unit with the sandbox of `unit`, drop-ins included, as its user.

    A check as root outside of the sandbox could read files that the service cannot: files for root alone, code below
    /home, the files in root's HOME. Prints `warnings_of` and `problems_of` the unit, then the output of the check.

    :returns: 0, or 78 for a problem.
    """
    name, _, instance = unit.removesuffix(".service").partition("@")
    for warning in warnings_of(unit):
        echo_error(f"{unit}: warning: {warning}")
    lines = service_lines(systemctl("cat", unit), instance)
    problems = list(problems_of(lines))
    for problem in problems:
        echo_error(f"{unit}: {problem}")
    transient = f"{name}-check-{os.getpid()}"
    file = BOOTED / f"{transient}.service"
    out, err = (Path(f"/run/{transient}.{stream}") for stream in ("out", "err"))
    command = f"{sys.argv[0]} check {' '.join(map(_quoted, arguments))}"
    try:
        file.write_text(_unit_text(lines, command, out, err))
        subprocess.run(["systemctl", "start", "--quiet", file.name], capture_output=True, check=False)
        for path, stream in ((out, sys.stdout), (err, sys.stderr)):
            with contextlib.suppress(FileNotFoundError):
                stream.write(path.read_text(errors="replace"))
                stream.flush()
        ended = properties(file.name, "ExecMainStatus", "Result")
        status = int(ended.get("ExecMainStatus") or 0)
        if status not in (0, exit_status.BAD_CONFIGURATION):
            what = f"{_SET_UP[status]}:" if status in _SET_UP else "the check ended with"
            how = f"{what} status {status} ({ended.get('Result') or 'unknown'}) in the unit's sandbox"
            echo_error(f"{unit}: {how}; systemd says: {_last_words(file.name)}")
        return exit_status.BAD_CONFIGURATION if status or problems else 0
    finally:
        for path in (file, out, err):
            path.unlink(missing_ok=True)
        systemctl("reset-failed", file.name)


def _unit_text(found: Sequence[tuple[str, str]], command: str, out: Path, err: Path) -> str:
    """Returns the transient unit: the lines of the service without those of `_NOT_TAKEN`."""
    lines = [f"{option}={value}" for option, value in found if not _NOT_TAKEN.fullmatch(option)]
    if any(option == "RuntimeDirectory" and value for option, value in found):
        # the directory exists only while the service runs: with "-" systemd ignores a missing path
        lines = [re.sub(r"(?<=[= ])%t/", "-%t/", line) for line in lines]
    lines += [
        "Type=oneshot",
        f"Environment={_IN_UNIT}=1",
        f"ExecStart={command}",
        f"StandardOutput=truncate:{out}",
        f"StandardError=truncate:{err}",
        "IPAddressAllow=localhost",  # for the check's own server; the unit may allow only the address of NATS
    ]
    return "\n".join(["[Service]", *lines]) + "\n"


def _quoted(argument: str) -> str:
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _last_words(unit: str) -> str:
    said = subprocess.run(
        ["journalctl", "--unit", unit, "--lines", "20", "--output", "cat", "--no-pager"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    reasons = [line.removeprefix(f"{unit}: ") for line in said if not _NO_REASON.search(line)]
    return "; ".join(dict.fromkeys(reasons[-3:])) or "nothing"
