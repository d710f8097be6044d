"""`ajc`, the command line of asyncjobs, as router and producer."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.router.events import TaskEvents
from tests.support.factories import Enter, NewHost, StartHost
from tests.support.nats import NatsServer
from tests.support.program import Program, run


async def stored_task(ajc: Path, context: dict[str, str], id: str) -> dict[str, Any]:
    """The task as the store has it."""
    viewed = await run(ajc, "tasks", "view", id, "--json", env=context)
    assert viewed.status == 0, viewed
    task: dict[str, Any] = json.loads(viewed.stdout)
    return task


async def test_ajc_processes_tasks_by_a_host(
    ajc: Path, jetstream: NatsServer, context: dict[str, str], new_host: NewHost
) -> None:
    created = await run(ajc, "queues", "add", "EMAIL", "--run-time", "30s", env=context)
    assert created.status == 0, created
    handlers = {"email:new": "echo"}
    async with new_host(handlers=handlers), TaskEvents(jetstream.url) as events:
        process = (ajc, "tasks", "process", "email:new", "EMAIL", "5", "--remote")
        async with Program(*process, env=context):
            added = await run(*(ajc, "tasks", "add", "email:new", '{"to": "x"}', "--queue", "EMAIL"), env=context)
            assert added.status == 0, added
            done = await events.until("complete", "retry", "terminated", "expired")
            assert (done["state"], done["tries"]) == ("complete", 1)
    task = await stored_task(ajc, context, done["task_id"])
    # what it was given is one JSON text to ajc
    assert json.loads(base64.b64decode(task["payload"])) == '{"to": "x"}'
    assert task["result"]["payload"] == task["payload"]


async def test_ajc_shows_the_error_of_a_handler(
    ajc: Path, jetstream: NatsServer, context: dict[str, str], start_host: StartHost, enter: Enter
) -> None:
    created = await run(ajc, "queues", "add", "EMAIL", "--run-time", "30s", env=context)
    assert created.status == 0, created
    modules = {
        "plain": (
            "from ajhost import Task, TerminateTask\n"
            "def error(task: Task) -> None:\n"
            "    raise RuntimeError('the mail server is down')\n"
            "def terminate(task: Task) -> None:\n"
            "    raise TerminateTask('no such recipient')\n"
        )
    }
    handlers = {"email:bad": "plain:error", "email:worse": "plain:terminate"}
    await start_host(handlers=handlers, modules=modules)
    events = await enter(TaskEvents(jetstream.url))
    for kind, state, text in (
        ("email:bad", "retry", "the mail server is down"),
        ("email:worse", "terminated", "no such recipient: terminate task"),
    ):
        async with Program(ajc, "tasks", "process", kind, "EMAIL", "5", "--remote", env=context):
            added = await run(ajc, "tasks", "add", kind, "{}", "--queue", "EMAIL", env=context)
            assert added.status == 0, added
            done = await events.until("complete", "retry", "terminated", "expired")
            assert done["state"] == state
        task = await stored_task(ajc, context, done["task_id"])
        assert (task["state"], task["tries"]) == (state, 1)
        assert task["last_err"].endswith(text)
        assert task["last_err"].startswith("handler error:") is (state == "retry")
