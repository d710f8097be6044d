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

from scripts.lib.bench import cost, counting, memory, queue_wait, respawn
from scripts.lib.bench.measurement import busy_machine

_QUIET = 0.05
"""What may go on beside a benchmark."""


def arguments(given: list[str]) -> argparse.Namespace:
    """What was asked for; without a subcommand it is `cost`."""
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given = ["cost", *given]
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as JSON too")
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Benchmarks of ajhost.")
    commands = parser.add_subparsers(dest="command", required=True)

    sub = commands.add_parser("cost", parents=[common], help="service CPU per no-op task, beside others")
    sub.add_argument("--rounds", type=int, default=40)
    sub.add_argument("--scale", type=float, default=1.0, help="a factor for the number of tasks")
    sub.add_argument("--slots", type=int, default=256, help="the host's [workers] concurrency")

    sub = commands.add_parser("counting", parents=[common], help="what statistics take of a no-op task's CPU")
    sub.add_argument("--rounds", type=int, default=10)

    sub = commands.add_parser("memory", parents=[common], help="memory of each further worker")
    sub.add_argument("--slots", type=int, default=16, help="[workers] concurrency")

    sub = commands.add_parser("respawn", parents=[common], help="from a kill -9 to answers and a new worker")
    sub.add_argument("--kills", type=int, default=40, help="at 4 workers, and as many at 1")

    sub = commands.add_parser("waiting", parents=[common], help="waiting times against one ideal queue")
    sub.add_argument("--seeds", type=int, default=5)
    sub.add_argument("--seconds", type=float, default=30.0, help="of each seed")
    sub.add_argument("--only", default="", metavar="TEXT", help="only cases whose name has it")
    return parser.parse_args(given)


async def perform(asked: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Runs the subcommand; its figures."""
    match asked.command:
        case "cost":
            return await cost.run(directory, rounds=asked.rounds, scale=asked.scale, slots=asked.slots)
        case "counting":
            return await counting.run(directory, rounds=asked.rounds)
        case "memory":
            return await memory.run(directory, slots=asked.slots)
        case "respawn":
            return await respawn.run(directory, kills=asked.kills)
        case "waiting":
            return await queue_wait.run(directory, seeds=asked.seeds, seconds=asked.seconds, only=asked.only)
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
        before = runner.run(busy_machine())
        figures = runner.run(perform(asked, Path(directory)))
        figures["busy_before"], figures["busy_after"] = before, runner.run(busy_machine())
    others = max(figures["busy_before"], figures["busy_after"])
    if others > _QUIET:
        print(f"others use {others:.0%} of this machine: do not trust these figures", file=sys.stderr)
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
