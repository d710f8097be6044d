"""A handler that configures logging, at import or in a task, takes nothing away from the host's log or its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router

APP = """
import logging, logging.config
{at_import}

async def configure(task):
    logging.config.dictConfig({{"version": 1, "disable_existing_loggers": True}})
    logging.shutdown()
    logging.basicConfig(force=True, handlers=[logging.NullHandler()])

async def fail(task):
    logging.getLogger("acme").warning("about to fail")
    print("printed by a handler")
    raise ValueError("told " + task.payload.decode())
"""
CONFIG = "logging.config.dictConfig({'version': 1, 'root': {'level': 'WARNING', 'handlers': []}})"


@pytest.mark.parametrize("at_import", ["", CONFIG])
async def test_failures_are_told_whatever_a_task_did_to_logging(
    nats_server: NatsServer, tmp_path: Path, at_import: str
) -> None:
    host = Host(
        tmp_path,
        nats=nats_server.url,
        handlers={"fail": "app:fail", "configure": "app:configure"},
        modules={"app": APP.format(at_import=at_import)},
        sections={"workers": {"count": 1}, "log": {"format": "json"}},
    )
    async with host, Router(nats_server.url) as router:
        for number in ("first", "second"):
            await router.request("fail", number.encode())
            line = await host.log(f"told {number}")
            assert json.loads(line.text)["role"] == "worker"
            await router.request("configure")
        text = host.log_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert [r["message"] for r in records].count("printed by a handler") == 2
    # once: the application has disabled its own logger then
    assert [r["message"] for r in records].count("about to fail") == 1
    for record in records:
        if record["message"] in ("printed by a handler", "about to fail"):
            assert record["type"] == "fail"
