"""Runs root's `ajhost check` in the sandbox of the systemd unit that runs the settings file, as the unit's user.

A check as root outside of the sandbox could read files that the service cannot: files for root alone, code below /home,
the files in root's HOME.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ajhost.cli import exit_status
from ajhost.cli.output import echo_error
from ajhost.cli.systemd_unit import BOOTED, problems_of, service_lines, systemctl, warnings_of

IN_UNIT = "_AJHOST_CHECK_IN_UNIT"
"""The environment variable by which a check knows that it runs in the sandbox."""
_NOT_TAKEN = re.compile(
    r"(Exec\w*|Type|Restart\w*|WatchdogSec|NotifyAccess|RuntimeDirectory\w*|FileDescriptorStoreMax|Timeout\w*|"
    r"Standard\w*|SyslogIdentifier|KillMode|OOMPolicy|RemainAfterExit|GuessMainPID|PIDFile|BusName|Sockets)"
)
"""Lines of the service that the check's unit must not have. With RuntimeDirectory= the end of the check would remove
the directory of the running service."""
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
    """Runs `ajhost check ARGUMENTS` in a transient unit with the sandbox of `unit`, drop-ins included.

    Prints `warnings_of` and `problems_of` the unit, then the output of the check. :returns: 0, or 78 for a problem.
    """
    name, _, instance = unit.removesuffix(".service").partition("@")
    for warning in warnings_of(unit):
        echo_error(f"{unit}: warning: {warning}")
    lines = service_lines(systemctl("cat", unit), instance)
    problems = list(problems_of(lines))
    for problem in problems:
        echo_error(f"{unit}: {problem}")
    check = f"{name}-check-{os.getpid()}"
    file = BOOTED / f"{check}.service"
    out, err = (Path(f"/run/{check}.{stream}") for stream in ("out", "err"))
    command = f"{sys.argv[0]} check {' '.join(map(_quoted, arguments))}"
    try:
        file.write_text(_unit_text(lines, command, out, err))
        subprocess.run(["systemctl", "start", "--quiet", file.name], capture_output=True, check=False)
        for path, stream in ((out, sys.stdout), (err, sys.stderr)):
            with contextlib.suppress(FileNotFoundError):
                stream.write(path.read_text(errors="replace"))
                stream.flush()
        shown = systemctl("show", "--property=ExecMainStatus,Result", file.name)
        status = int(re.search(r"ExecMainStatus=(\d+)", f"{shown}ExecMainStatus=0")[1])  # type: ignore[index]
        if status not in (0, exit_status.BAD_CONFIGURATION):
            how = f"the check ended with status {status} ({_result(shown)}) in the unit's sandbox"
            if status in _SET_UP:
                how = f"{_SET_UP[status]}: status {status} ({_result(shown)}) in the unit's sandbox"
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
        f"Environment={IN_UNIT}=1",
        f"ExecStart={command}",
        f"StandardOutput=truncate:{out}",
        f"StandardError=truncate:{err}",
        "IPAddressAllow=localhost",  # for the check's own server; the unit may allow only the address of NATS
    ]
    return "\n".join(["[Service]", *lines]) + "\n"


def _quoted(argument: str) -> str:
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _result(shown: str) -> str:
    found = re.search(r"Result=(\S+)", shown)
    return found[1] if found else "unknown"


def _last_words(unit: str) -> str:
    said = subprocess.run(
        ["journalctl", "--unit", unit, "--lines", "20", "--output", "cat", "--no-pager"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    reasons = [line.removeprefix(f"{unit}: ") for line in said if not _NO_REASON.search(line)]
    return "; ".join(dict.fromkeys(reasons[-3:])) or "nothing"
