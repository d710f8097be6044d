"""The demonstration: a nats-server, a host with two workers, and tasks served before your eyes, in under a minute.

What it sends is what a Choria AsyncJobs router sends: one request a task, with a deadline, on a one-shot inbox.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

HANDLERS = '''
import asyncio, os, time
from ajhost import Task, TerminateTask

async def send(task: Task):
    """Pretends to send a mail."""
    to = task.json()["to"]
    if to == "nobody":
        raise TerminateTask("there is no such address")
    if to == "broken":
        raise ConnectionError("the mail server does not answer")
    await asyncio.sleep(0.05)
    return {"sent_to": to, "by_pid": os.getpid()}

def report(task: Task):
    """An ordinary function: it runs in a thread."""
    time.sleep(0.1)
    return f"a report of type {task.type}, try {task.tries}"

async def slow(task: Task):
    await asyncio.sleep(3600)
'''

CONFIGURATION = """
[nats]
servers = ["nats://127.0.0.1:{port}"]
[python]
path = ["{folder}"]
[workers]
count = 2
concurrency = 8
[handlers."email:new"]
target = "shop:send"
[handlers."report:"]
target = "shop:report"
[handlers.slow]
target = "shop:slow"
[runtime]
directory = "{folder}/run"
"""


def say(text: str) -> None:
    """A line of the show, with the seconds since it began."""
    print(
        f"\033[1m{time.monotonic() - BEGAN:5.1f} s  {text}\033[0m"
        if COLOUR
        else f"{time.monotonic() - BEGAN:5.1f} s  {text}",
        flush=True,
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def ask(client: Client, route: str, type_: str, payload: object, seconds: float = 30) -> tuple[str, str]:
    """Sends a task as the router does; the kind of its answer and the text."""
    now = datetime.now(UTC)
    task = {
        "id": "2" + os.urandom(13).hex(),
        "type": type_,
        "queue": "DEMO",
        "payload": base64.b64encode(json.dumps(payload).encode()).decode(),
        "max_tries": 10,
        "state": "active",
        "created": now.isoformat().replace("+00:00", "Z"),
        "tried": now.isoformat().replace("+00:00", "Z"),
        "tries": 1,
    }
    deadline = now + timedelta(seconds=seconds)
    headers = {
        "AJ-Content-Type": "application/x-asyncjobs-task+json",
        "AJ-Handler-Deadline": deadline.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    try:
        reply = await client.request(
            f"CHORIA_AJ.H.T.{route}", json.dumps(task).encode(), timeout=seconds + 2, headers=headers
        )
    except NoRespondersError:
        return "no responders", ""
    except NatsTimeout:
        return "SILENCE", ""
    given = reply.headers or {}
    for header in ("AJ-Terminate", "AJ-Error"):
        if given.get(header):
            return header, given[header]
    return "complete", reply.data.decode()


async def show(client: Client, what: str, route: str, type_: str, payload: object, seconds: float = 30) -> None:
    """Sends one task and says what came back, and when."""
    say(what)
    began = time.monotonic()
    kind, text = await ask(client, route, type_, payload, seconds)
    print(f"         {kind:12} {text}   [{(time.monotonic() - began) * 1000:.0f} ms]", flush=True)


def workers(configuration: Path) -> list[dict[str, object]]:
    """The host's workers, as `ajhost status --json` tells them."""
    done = subprocess.run(
        [sys.executable, "-m", "ajhost", "status", "-c", str(configuration), "--json"],
        capture_output=True,
        check=False,
    )
    return list(json.loads(done.stdout)["workers"]) if done.stdout else []


async def perform(folder: Path, port: int, host: subprocess.Popen[bytes]) -> None:
    """The show itself."""
    configuration = folder / "ajhost.toml"
    while not [w for w in workers(configuration) if w["state"] == "serving"][1:]:
        if host.poll() is not None:
            raise SystemExit(f"the host ended with status {host.returncode}")
        await asyncio.sleep(0.1)
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    await show(client, "a task for an async handler", "email:new", "email:new", {"to": "ada@example.net"})
    await show(client, "a task that fails: the router would try it again", "email:new", "email:new", {"to": "broken"})
    await show(client, "a task that makes no sense: no further try", "email:new", "email:new", {"to": "nobody"})
    await show(
        client,
        "a route that is the beginning of a type, and a plain function in a thread",
        "report:",
        "report:daily",
        {},
    )
    await show(client, "a handler that is too slow: the deadline answers", "slow", "slow", {}, seconds=2)
    say("kill -9 of a worker while its task runs: the task is answered, the worker replaced")
    pending = asyncio.create_task(ask(client, "slow", "slow", {}, 30))
    busy: list[dict[str, object]] = []
    while not busy:
        busy = [w for w in workers(configuration) if w["tasks"]]
        await asyncio.sleep(0.05)
    pid = int(str(busy[0]["pid"]))
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    kind, text = await pending
    print(f"         {kind:12} {text}   [{(time.monotonic() - began) * 1000:.0f} ms after the kill]", flush=True)
    say("1000 tasks in two seconds, and kill -9 of both workers in the middle")
    pids = [int(str(worker["pid"])) for worker in workers(configuration)]
    many = []
    for number in range(1000):
        many.append(asyncio.create_task(ask(client, "email:new", "email:new", {"to": f"user{number}"})))
        if number in (300, 600):
            os.kill(pids.pop(), signal.SIGKILL)
        await asyncio.sleep(0.002)
    kinds: dict[str, int] = {}
    for kind, text in await asyncio.gather(*many):
        word = kind if kind != "AJ-Error" else f"AJ-Error ({text.split(':')[0]})"
        kinds[word] = kinds.get(word, 0) + 1
    print("         " + ", ".join(f"{count} {word}" for word, count in sorted(kinds.items())), flush=True)
    if "SILENCE" in kinds:
        raise SystemExit("a request without an answer: this must not be")
    await client.close()
    say("SIGTERM: the host leaves the group, finishes, and ends")
    host.terminate()
    status = host.wait(40)
    say(f"done: the host ended with status {status}; every task was answered")


def main() -> None:
    """Sets the stage and clears it again."""
    folder = Path(tempfile.mkdtemp(prefix="ajhost-demo-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    port = free_port()
    (folder / "shop.py").write_text(HANDLERS)
    configuration = folder / "ajhost.toml"
    configuration.write_text(CONFIGURATION.format(port=port, folder=folder))
    configuration.chmod(0o600)
    say(f"a nats-server on 127.0.0.1:{port}, a host with two workers")
    binary = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if binary is None:
        raise SystemExit("nats-server is missing; scripts/demo installs it")
    log = (folder / "nats.log").open("wb")
    server = subprocess.Popen([binary, "-a", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    host = subprocess.Popen([sys.executable, "-m", "ajhost", "run", "-c", str(configuration)])
    try:
        asyncio.run(perform(folder, port, host))
    finally:
        for process in (host, server):
            if process.poll() is None:
                process.terminate()
                process.wait(40)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


BEGAN = time.monotonic()
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ

if __name__ == "__main__":
    main()
