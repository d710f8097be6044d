"""`python -m scripts.lib.walks [TREE] [--jumps]`: the files and jumps of a task and of a death."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.lib.walks.walk import Walk, walks


def show(name: str, walk: Walk, *, jumps: bool) -> None:
    """Prints one walk."""
    print(f"{name}: {len(walk.way)} files of the way, {len(walk.files)} with their tools,")
    print(f"  {walk.crossings} jumps between files, {len(walk.unnamed)} that go-to-definition cannot follow")
    for number, file in enumerate(walk.way, start=1):
        print(f"  {number:2} {file}")
    print(f"  tools: {', '.join(file for file in walk.files if file not in walk.way)}")
    for unnamed in walk.unnamed:
        print(f"  unnamed: {unnamed}")
    if jumps:
        for jump in walk.jumps:
            print(f"    {jump.turn:6} {jump.origin or 'loop'} -> {jump.target}: {jump.function}")


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--jumps"]
    task, death = walks(Path(arguments[0]) if arguments else Path(__file__).parents[3])
    for name, walk in (("one task", task), ("one death", death)):
        show(name, walk, jumps="--jumps" in sys.argv)
