"""Every command of `docs/tutorial.md`, as it stands: only the port is another, and what would download is left out."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.doc_page import Reader, shell_blocks
from tests.support.nats import free_port

_READY = {"nats-server": "Server is ready", "ajhost dev": "workers serve"}
_UNDER_WAY = "│ (new|active|queued) "


async def test_the_tutorial_works_as_it_is_written(ajc: Path, tmp_path: Path) -> None:
    port = str(free_port())
    said: list[str] = []
    async with AsyncExitStack() as stack:
        reader = Reader(stack, tmp_path, ajc)
        running = {}
        for block in shell_blocks("docs/tutorial.md"):
            commands = block.text.replace("4222", port)
            if block.runs_on:
                ready = next((text for name, text in _READY.items() if name in commands), None)
                running[ready] = await reader.start(commands, ready)
                continue
            said.append((await reader.run(commands, again=_UNDER_WAY)).stdout)
            if "sed -i" in commands:
                await running["workers serve"].log.next("dev: reloaded in")
    assert len(running) == 3
    everything = "\n".join(said)
    assert "5 passed" in everything
    results = [json.loads(line) for line in re.findall(r'^\{"sent".*\}$', everything, re.MULTILINE)]
    assert [result["sent"] for result in results] == ["ada@example.net", "ADA@EXAMPLE.NET"]
    assert re.search(r"email:new .*│ complete +│ EMAIL │ 1", everything)
    assert re.search(r"email:new .*│ terminated +│ EMAIL │ 1", everything)
    assert '"last_err": "invalid payload: mail.to: field required: terminate task"' in everything
