"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from scripts.lib.bench import cost


def arguments(given: list[str]) -> argparse.Namespace:
    """What was asked for; without a subcommand it is `cost`."""
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given = ["cost", *given]
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as JSON too")
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Benchmarks of ajhost.")
    commands = parser.add_subparsers(dest="command", required=True)

    sub = commands.add_parser("cost", parents=[common], help="service CPU per no-op task, beside others")
    sub.add_argument("--rounds", type=int, default=8)
    sub.add_argument("--scale", type=float, default=1.0, help="a factor for the number of tasks")
    sub.add_argument("--slots", type=int, default=256, help="the host's [workers] concurrency")
    return parser.parse_args(given)


async def perform(asked: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Runs the subcommand; its figures."""
    match asked.command:
        case "cost":
            return await cost.run(directory, rounds=asked.rounds, scale=asked.scale, slots=asked.slots)
        case other:
            raise ValueError(other)


def main() -> None:
    """Entry point."""
    asked = arguments(sys.argv[1:])
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="ajhost-bench-", dir=shared) as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        figures = runner.run(perform(asked, Path(directory)))
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
