"""The runbook: the blocks of docs/runbook.md, and what commands print, without what differs from run to run.

With RUNBOOK=write in the environment a block that differs is replaced by what the command printed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "runbook.md"
_BLOCK = r"(?<=<!-- situation {name} -->\n```console\n)(.*?)(?=\n```)"
_VARIES = (
    (r"^ +\d+ +\d+ ", "SLOT-N NUMBER "),
    (r"^ +\d+ +(?=[0-9A-Za-z]{27} )", "SLOT-N "),
    (r"\bworker \d+( \(pid \d+\))?", "WORKER"),
    (r", \d+ reconnects?\b", ""),  # what a machine that stands still makes
    (r"\bpid \d+", "PID"),
    (r"\buser \d+", "USER"),
    (r"\b[0-9A-Za-z]{27}\b", "ID"),
    (r"\b\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "TIME"),
    (r":\d+ in ", ":LINE in "),
    (r"-?\b\d+(\.\d+)?(e-\d+)? (ms|s|min|h|d)\b(?: \d+ (s|min|h)\b)?", "AGE"),
    (r"\b\d+ MiB", "SIZE"),
    (r"\b\d+%", "SHARE"),
    (r"(?<=hread 0x)([0-9a-f]+) \[[^\]]*\]", r"\1"),  # its name, since Python 3.14
    (r"\b0x[0-9a-f]+\b|\bajhost-check-[0-9a-f]+", "0x0"),
    (r"\b\d+(\.\d+)?(e-\d+)? (answers|errors)/s", r"N \3/s"),
    (r"\b\d{3,}\b", "NUMBER"),
)
_COUNTS_OF_A_ROUTE = re.compile(r"^(\S+ +\d+ +\d+) .*")


def steady(text: str) -> list[str]:
    """The lines of an output without ids, processes, slots, times, sizes and rates; equal lines are one."""
    lines: list[str] = []
    in_routes = False
    for line in text.splitlines():
        if line.startswith("ROUTE "):
            in_routes = True
        elif not line.strip():
            in_routes = False
        elif in_routes:  # behind what runs and waits are rates, and what was before
            line = _COUNTS_OF_A_ROUTE.sub(r"\1", line)
        for pattern, name in _VARIES:
            line = re.sub(pattern, name, line)
        line = " ".join(line.split())
        if not lines or line != lines[-1]:
            lines.append(line)
    return _any_order(lines)


def _any_order(lines: Sequence[str]) -> list[str]:
    """Rows of workers and tasks: which slot has which is chance."""
    ordered: list[str] = []
    for of_a_slot, rows in groupby(lines, key=lambda line: line.startswith("SLOT-N ")):
        group = list(rows)
        ordered += sorted(group) if of_a_slot else group
    return ordered


def block(name: str) -> str:
    """What the runbook shows for a situation. Raises KeyError."""
    found = re.search(_BLOCK.format(name=re.escape(name)), PAGE.read_text(), re.DOTALL)
    if found is None:
        raise KeyError(name)
    return found[1]


def situations() -> list[str]:
    """The names of all of them, in the order of the page."""
    return re.findall(r"^<!-- situation (\S+) -->$", PAGE.read_text(), re.MULTILINE)


def _as_on_the_page(command: str, printed: str, places: Mapping[str, str]) -> str:
    text = f"$ {command}\n{printed.rstrip()}"
    for place, called in sorted(places.items(), key=lambda each: -len(each[0])):
        text = text.replace(place, called)
    return text


def fits(name: str, command: str, printed: str, places: Mapping[str, str]) -> bool:
    """Whether the page shows this command and output; `...` there stands for lines, or none.

    `places`: paths and addresses of the test, and what the page calls them.
    """
    shown, found = steady(block(name)), steady(_as_on_the_page(command, printed, places))
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in found)) is not None


def compare(name: str, command: str, printed: str, places: Mapping[str, str]) -> None:
    """Raises AssertionError when the page shows something else, unless it is to be written."""
    if fits(name, command, printed, places):
        return
    text = _as_on_the_page(command, printed, places)
    if os.environ.get("RUNBOOK") != "write":
        raise AssertionError(f"{name}: docs/runbook.md shows\n{block(name)}\n\nand it printed\n{text}")
    page = PAGE.read_text()
    PAGE.write_text(re.sub(_BLOCK.format(name=re.escape(name)), lambda _: text, page, flags=re.DOTALL))
