"""The peer to compare with: what one writes by hand with nats-py, handler inside the callback, nothing promised.

`python -m scripts.lib.bench.peer_bare_callback URL SUBJECT` serves until SIGTERM, and prints `ready` before.
"""

from __future__ import annotations

import asyncio
import base64
import signal
import sys
from datetime import datetime

import nats
import orjson
import uvloop
from nats.aio.msg import Msg

from ajhost.protocol.request_headers import CONTENT_TYPE
from scripts.lib.bench.handlers import noop_result


async def serve(url: str, subject: str) -> None:
    """Joins the queue group and answers."""
    client = await nats.connect(url)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    async def answer(message: Msg) -> None:
        headers = message.headers or {}
        if headers.get("AJ-Content-Type") != CONTENT_TYPE:
            raise ValueError("not a task")
        datetime.fromisoformat(headers["AJ-Handler-Deadline"])
        task = orjson.loads(message.data)
        arguments = orjson.loads(base64.b64decode(task["payload"]))
        await client.publish(message.reply, noop_result(task["id"], arguments))

    await client.subscribe(subject, queue="bench", cb=answer)
    await client.flush()
    print("ready", flush=True)
    await ended.wait()
    await client.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2]))
