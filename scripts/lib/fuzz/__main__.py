"""The command line of `scripts/fuzz`."""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from pathlib import Path

from scripts.lib.fuzz.live_host import LiveHost
from scripts.lib.fuzz.targets import check, readers

_LIVE_SHARE = 0.6
"""Of the time, for the host that serves."""
_SEALED_SHARE = 0.15
"""Of that, for the one whose connections are encrypted."""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="of all changes; default: the time")
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="only readers whose name has it; `host` for the host"
    )
    asked = parser.parse_args()
    seed = int(time.time()) if asked.seed is None else asked.seed
    seconds, failures = asked.minutes * 60, list[str]()
    print(f"seed {seed}, {asked.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="ajhost-fuzz-") as name:
        directory = Path(name)
        chosen = [reader for reader in readers(directory) if re.search(asked.only, reader.name)]
        live_too = re.search(asked.only, "host") is not None
        share = seconds * (1 - _LIVE_SHARE * live_too)
        for reader in chosen:
            rng = random.Random(f"{seed} {reader.name}")
            count, found = check(reader, rng, time.monotonic() + share / len(chosen))
            failures += map(str, found)
            print(f"{count:>10,}  {reader.name}{f', {len(found)} FAILED' if found else ''}", flush=True)
        if live_too:
            live = LiveHost(directory, random.Random(f"{seed} host"))
            left = seconds - share * bool(chosen)
            asyncio.run(live.run(left * (1 - _SEALED_SHARE)))
            asyncio.run(live.run_sealed(left * _SEALED_SHARE))
            failures += live.failures
            print(f"{live.sent:>10,}  host{', FAILED' if live.failures else ''}", flush=True)
    for failure in failures:
        print(f"!  {failure}")
    print(f"seed {seed}: {'well' if not failures else 'FAILED'}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
