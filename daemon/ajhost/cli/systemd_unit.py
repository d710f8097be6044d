"""Finds the systemd unit that runs a settings file, and judges its lines for `ajhost check`: what a unit of one's own
lacks, such as `Restart=always`, and what lets each start fail. `run_as_user.py` becomes its user.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ajhost.settings.sections import DEFAULT_FILE

BOOTED = Path("/run/systemd/system")
"""The directory of transient units, which exists only if systemd is the init system (sd_booted(3))."""
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


def unit_of(config: Path) -> str | None:
    """Returns the name of the unit whose ExecStart= has `-c config`; None without one, or if systemd does not run."""
    if not BOOTED.is_dir():
        return None
    unit = "ajhost.service" if config == DEFAULT_FILE else f"ajhost@{config.stem}.service"
    shown = systemctl("show", "--property=LoadState,ExecStart", unit)
    return unit if "LoadState=loaded" in shown and f"-c {config} " in f"{shown} " else None


def warnings_of(unit: str) -> list[str]:
    """Returns a warning for each property of the unit, drop-ins included, with which the host lacks a feature."""
    found = properties(unit, *_EXPECTED)
    return [
        f"found {name}={found[name]}, allowed: {allowed}"
        for name, (good, allowed) in _EXPECTED.items()
        if name in found and not good(found[name])
    ]


def user_of(unit: str) -> str:
    """Returns User= of the unit; empty for root."""
    return properties(unit, "User").get("User", "")


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


def service_lines(cat: str, instance: str) -> list[tuple[str, str]]:
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


def properties(unit: str, *names: str) -> dict[str, str]:
    """Returns properties of a unit as systemd shows them; one that this systemd does not know is absent."""
    shown = systemctl("show", "--property", ",".join(names), unit)
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def systemctl(*arguments: str) -> str:
    """Returns what systemctl prints on standard output."""
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False).stdout
