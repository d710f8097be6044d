"""What README.md shows, as it stands: its commands, its handler, its settings."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.doc_page import ROOT, Reader, shell_blocks
from tests.support.nats import NatsServer

README = (ROOT / "README.md").read_text()


async def test_its_five_minutes_lead_to_a_handler_that_is_tested_and_served(tmp_path: Path) -> None:
    said = []
    async with AsyncExitStack() as stack:
        reader = Reader(stack, tmp_path)
        for block in shell_blocks("README.md"):
            if block.runs_on:
                await reader.start(block.text, "workers serve")
            else:
                said.append(await reader.run(block.text))
    assert "5 passed" in said[0].stdout
    assert "email:new  handlers:send" in said[1].stdout
    assert '{"sent":"ada"' in said[1].stdout
    assert "invalid payload: mail.to: field required" in said[1].stderr


async def test_its_handler_and_its_settings_serve(nats_server: NatsServer, tmp_path: Path) -> None:
    (python,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (toml,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    commands = [line.partition("  #")[0].strip() for line in README.splitlines() if line.startswith("    ajhost ")]
    check, serve, call = commands[:3]
    assert python.startswith("# /srv/shop/mail.py\n")
    (tmp_path / "mail.py").write_text(python)
    for ours, theirs in (
        ("nats://127.0.0.1:4222", nats_server.url),
        ("/srv/shop", str(tmp_path)),
    ):
        assert ours in toml
        toml = toml.replace(ours, theirs)
    # the default is one for all hosts of a user
    (tmp_path / "ajhost.toml").write_text(f'{toml}\n[runtime]\ndirectory = "{tmp_path}/run"\n')
    async with AsyncExitStack() as stack:
        reader = Reader(stack, tmp_path)
        assert "good, 1 handler" in (await reader.run(check)).stdout
        await reader.start(serve, "workers serve")
        assert json.loads((await reader.run(call)).stdout) == {"sent": "ada"}
