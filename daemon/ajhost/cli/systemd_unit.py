"""Finds the systemd unit that runs a settings file, and runs root's `ajhost check` in that unit's sandbox as its user.

A check as root outside of the sandbox could read files that the service cannot: files for root alone, code below /home,
the files in root's HOME.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ajhost.cli import exit_status
from ajhost.cli.output import echo_error
from ajhost.settings.values import DEFAULT_FILE

_BOOTED = Path("/run/systemd/system")
"""The directory of transient units, which exists only if systemd is the init system (sd_booted(3))."""
IN_UNIT = "_AJHOST_CHECK_IN_UNIT"
"""The environment variable by which a check knows that it runs in the sandbox."""
_NOT_TAKEN = re.compile(
    r"(Exec\w*|Type|Restart\w*|WatchdogSec|NotifyAccess|RuntimeDirectory\w*|FileDescriptorStoreMax|Timeout\w*|"
    r"Standard\w*|SyslogIdentifier|KillMode|OOMPolicy|RemainAfterExit|GuessMainPID|PIDFile|BusName|Sockets)"
)
"""Lines of the service that the check's unit must not have. With RuntimeDirectory= the end of the check would remove
the directory of the running service."""

_EXPECTED: dict[str, tuple[Callable[[str], bool], str]] = {
    "Type": (
        ("notify", "notify-reload").__contains__,
        "notify, without which systemd knows neither when it is ready nor whether it lives",
    ),
    "KillMode": (
        ("mixed", "process").__contains__,
        "mixed, without which a stop ends the processes of handlers before their tasks",
    ),
    "Restart": (
        ("always", "on-failure").__contains__,
        "always, without which nobody answers for the requests of a host that crashed",
    ),
    "RuntimeDirectoryPreserve": (
        ("restart", "yes").__contains__,
        "restart, without which the next start finds no ledger of the one before, and answers for none of its requests",
    ),
    "RuntimeDirectory": (
        bool,
        "a directory for [runtime], without which it must be there, and be the service's own, before each start",
    ),
    "FileDescriptorStoreMax": (
        lambda text: text != "0",
        "4096, without which the connections of a host that crashed are lost, and with them what waited in them",
    ),
}
"""For each property of a unit: which values let a host do all that it promises, and the value to write instead."""


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


def unit_of(config: Path) -> str | None:
    """Returns the name of the unit whose ExecStart= has `-c config`; None without one, or if systemd does not run."""
    if not _BOOTED.is_dir():
        return None
    unit = "ajhost.service" if config == DEFAULT_FILE else f"ajhost@{config.stem}.service"
    shown = _systemctl("show", "--property=LoadState,ExecStart", unit)
    return unit if "LoadState=loaded" in shown and f"-c {config} " in f"{shown} " else None


def warnings_of(unit: str) -> list[str]:
    """Returns a warning for each property of the unit, drop-ins included, with which the host lacks a feature."""
    shown = _systemctl("show", "--property", ",".join(_EXPECTED), unit)
    found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return [
        f"found {name}={found[name]}, allowed: {allowed}"
        for name, (good, allowed) in _EXPECTED.items()
        if name in found and not good(found[name])
    ]


def user_of(unit: str) -> str:
    """Returns User= of the unit; empty for root."""
    return _systemctl("show", "--property=User", "--value", unit).strip()


def check_in_sandbox(unit: str, arguments: Sequence[str]) -> int:
    """Runs `ajhost check ARGUMENTS` in a transient unit with the sandbox of `unit`, drop-ins included.

    Prints `warnings_of` and `problems_of` the unit, then the output of the check. :returns: 0, or 78 for a problem.
    """
    name, _, instance = unit.removesuffix(".service").partition("@")
    for warning in warnings_of(unit):
        echo_error(f"{unit}: warning: {warning}")
    lines = _service_lines(_systemctl("cat", unit), instance)
    problems = list(problems_of(lines))
    for problem in problems:
        echo_error(f"{unit}: {problem}")
    check = f"{name}-check-{os.getpid()}"
    file = _BOOTED / f"{check}.service"
    out, err = (Path(f"/run/{check}.{stream}") for stream in ("out", "err"))
    command = f"{sys.argv[0]} check {' '.join(map(_quoted, arguments))}"
    try:
        file.write_text(_unit_text(lines, command, out, err))
        subprocess.run(["systemctl", "start", "--quiet", file.name], capture_output=True, check=False)
        for path, stream in ((out, sys.stdout), (err, sys.stderr)):
            with contextlib.suppress(FileNotFoundError):
                stream.write(path.read_text(errors="replace"))
                stream.flush()
        shown = _systemctl("show", "--property=ExecMainStatus,Result", file.name)
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
        _systemctl("reset-failed", file.name)


def problems_of(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yields each problem that lets every start with these lines fail, but not the check, whose unit lacks them."""
    values: dict[str, list[str]] = {}
    for option, value in lines:
        values.setdefault(option, []).append(value)
    made = [Path(f"/run/{name}") for value in values.get("RuntimeDirectory", ()) for name in value.split()]
    for option in ("ReadOnlyPaths", "InaccessiblePaths"):
        for text in " ".join(values.get(option, ())).split():
            path = Path(text.lstrip("-+").replace("%t", "/run"))
            if any(directory in (path, *path.parents) for directory in made):
                yield f"found {option}={text}, allowed: paths outside of RuntimeDirectory=, where the host writes"
    for option in ("StandardInput", "StandardOutput", "StandardError"):
        value = values.get(option, [""])[-1]
        kind, _, name = value.partition(":")
        if kind not in ("file", "append", "truncate"):
            continue
        file = Path(name.replace("%t", "/run"))
        if option == "StandardInput" and not file.exists():
            yield f"found {option}={value}, allowed: a file that is there before the start"
        elif not file.parent.is_dir():
            yield f"found {option}={value}, allowed: a file in a directory that is there before the start"


def _service_lines(cat: str, instance: str) -> list[tuple[str, str]]:
    """Returns option and value of each `[Service]` line of `systemctl cat`, with the instance's name filled in."""
    lines: list[tuple[str, str]] = []
    section = ""
    for line in re.sub(r"\\\n", " ", cat).splitlines():
        text = line.strip()
        if text.startswith("["):
            section = text
        elif section == "[Service]" and "=" in text and text[0] not in "#;":
            option, value = map(str.strip, text.replace("%i", instance).replace("%I", instance).split("=", 1))
            if not value:  # an empty value clears the list (systemd.unit(5))
                lines = [line for line in lines if line[0] != option]
            lines.append((option, value))
    return lines


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


def _systemctl(*arguments: str) -> str:
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False).stdout
