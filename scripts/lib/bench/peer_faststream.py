"""A peer to compare with: FastStream, as its documentation shows it, in the queue group.

`python -m scripts.lib.bench.peer_faststream URL SUBJECT` serves until SIGTERM, and prints `ready` before.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import sys
from typing import Any

import orjson
import uvloop

from scripts.lib.bench.handlers import noop_result


async def serve(url: str, subject: str) -> None:
    """Joins the queue group and answers."""
    # by name, so that the types of this project can be checked where FastStream is not installed
    faststream = importlib.import_module("faststream")
    broker = importlib.import_module("faststream.nats").NatsBroker(url, logger=None)
    application = faststream.FastStream(broker, logger=None)

    async def answer(task: dict[str, Any]) -> bytes:
        return noop_result(task["id"], orjson.loads(base64.b64decode(task["payload"])))

    broker.subscriber(subject, queue="bench")(answer)

    async def ready() -> None:
        print("ready", flush=True)

    application.after_startup(ready)
    await application.run()


if __name__ == "__main__":
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve(sys.argv[1], sys.argv[2]))
