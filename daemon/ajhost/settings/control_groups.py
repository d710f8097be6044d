"""Finds a process's control groups, whose files have its limits of CPU and memory, of both versions (cgroups(7))."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def control_groups(process: Path, controller: str) -> Iterator[Path]:
    """Yields the directories of a process's control groups with this controller, and their ancestors, its own first.

    `process`: its directory in /proc.
    """
    try:
        groups = (process / "cgroup").read_text().splitlines()
        mounts = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields, (kind, *_, options) = left.split(), right.split()
        root, place = _unescaped(fields[3]), Path(_unescaped(fields[4]))
        for group in groups:
            _, controllers, path = group.split(":", 2)
            unified = kind == "cgroup2" and not controllers
            legacy = kind == "cgroup" and controller in controllers.split(",") and controller in options.split(",")
            if unified or legacy:
                yield from _ancestry(place, root, path)


def _ancestry(place: Path, root: str, path: str) -> Iterator[Path]:
    """Yields the directories of group `path` and its ancestors, up to `place`, where group `root` is mounted."""
    inside = path.removeprefix(root.rstrip("/")) if path.startswith(root) else ""
    group = place / inside.strip("/")
    if not group.is_dir():  # outside of the part of the hierarchy that this container has mounted
        group = place
    yield group
    while group != place:
        group = group.parent
        yield group


def _unescaped(field: str) -> str:
    """Decodes a field of mountinfo, which has blanks and backslashes in octal (proc(5))."""
    return field.encode().decode("unicode_escape") if "\\" in field else field
