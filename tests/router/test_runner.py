"""The container runner that `ajc package docker` generates, built and run without a container."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from tests.router.conftest import built
from tests.router.events import TaskEvents
from tests.support.factories import Enter, StartHost
from tests.support.nats import NatsServer
from tests.support.program import Program, run

PACKAGE = """\
nats: AJC
queue: EMAIL
tasks:
  - type: "email:new"
    remote: true
  - type: ""
    remote: true
"""


@pytest.fixture
async def runner(ajc: Path, tmp_path: Path) -> Path:
    """Generated as an administrator would; it has no Go of ours in it."""
    directory = tmp_path / "package"
    directory.mkdir()
    (directory / "asyncjobs.yaml").write_text(PACKAGE)
    generated = await run(ajc, "package", "docker", cwd=directory)
    assert generated.status == 0, generated
    # the time of the build would make it another program each minute
    main = re.sub("Build Time: .*", "Build Time: unknown", (directory / "main.go").read_text())
    return built("runner", sources={"main.go": main})


async def test_the_generated_runner_reaches_both_of_its_routes(
    runner: Path,
    ajc: Path,
    jetstream: NatsServer,
    context: dict[str, str],
    start_host: StartHost,
    enter: Enter,
) -> None:
    created = await run(ajc, "queues", "add", "EMAIL", "--run-time", "30s", env=context)
    assert created.status == 0, created
    environment = {**context, "AJ_WORK_QUEUE": "EMAIL", "AJ_NATS_CONTEXT": "AJC"}
    await start_host(handlers={"email:new": "describe", "": "describe"})
    events = await enter(TaskEvents(jetstream.url))
    await enter(Program(runner, env=environment))
    for kind in ("email:new", "sms:new"):
        added = await run(ajc, "tasks", "add", kind, "text", "--queue", "EMAIL", env=context)
        assert added.status == 0, added
        done = await events.until("complete", "retry", "terminated", "expired")
        assert (done["state"], done["task_type"]) == ("complete", kind)
        viewed = await run(ajc, "tasks", "view", done["task_id"], "--json", env=context)
        seen = json.loads(base64.b64decode(json.loads(viewed.stdout)["result"]["payload"]))
        assert (seen["id"], seen["type"], seen["queue"]) == (done["task_id"], kind, "EMAIL")
        # MaxRunTime less the two seconds that the router keeps, less the fraction that it cuts off
        assert 15 < seen["remaining"] <= 28
