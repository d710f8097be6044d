"""What each further worker process costs in memory."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from scripts.lib.bench.measurement import Memory, memory, table
from scripts.lib.bench.peers import host
from tests.support.load_generator import ajload
from tests.support.nats import NatsServer

COUNTS = (1, 2, 4)
_TASKS = 20_000


async def run(directory: Path, *, slots: int) -> dict[str, Any]:
    """Hosts of 1, 2 and 4 workers after some tasks; `slots` is `concurrency`. Returns the figures, prints a table."""
    rows: list[list[object]] = [["MB", "USS a worker", "PSS a worker", "USS of all", "PSS of all processes"]]
    figures: dict[str, Any] = {"slots": slots, "workers": {}}
    totals: dict[int, Memory] = {}
    async with NatsServer(directory) as server:
        for count in COUNTS:
            workers = {"count": count, "concurrency": slots}
            async with host(directory, server.url, {"ajhost": "noop"}, workers) as ours:
                load = ("-t", "ajhost", "-c", "32", "-n", str(_TASKS * count))
                await ajload(server.url, *load)
                each = [memory(pid) for pid in ours.workers().values()]
                every = [memory(process.pid) for process in ours.all_processes()]
            totals[count] = Memory(sum(m.uss for m in every), sum(m.pss for m in every))
            one = Memory(statistics.mean(m.uss for m in each), statistics.mean(m.pss for m in each))
            rows.append([f"{count} workers", one.uss, one.pss, totals[count].uss, totals[count].pss])
            figures["workers"][str(count)] = {
                "uss": one.uss,
                "pss": one.pss,
                "all_uss": totals[count].uss,
                "all_pss": totals[count].pss,
            }
    first, last = COUNTS[0], COUNTS[-1]
    further = (totals[last].pss - totals[first].pss) / (last - first)
    figures["further_worker_uss"] = (totals[last].uss - totals[first].uss) / (last - first)
    figures["further_worker_pss"] = further
    rows.append(["each further worker", figures["further_worker_uss"], further, "", ""])
    print(table(rows))
    return figures
