"""Every command of `docs/tutorial.md`, as it stands."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support import golang
from tests.support.doc_page import ROOT, Reader, shell_blocks
from tests.support.program import run

PAGE = "docs/tutorial.md"
_READY = {"ajhost dev": "workers serve", "ajc tasks process": None}
_UNDER_WAY = r"│ (new|active|queued) |KeyError: 'result'|last_err.*no responders"
_COMMANDS = 10
"""So many from an empty machine to the stored result."""


def test_the_tutorial_has_ten_commands_up_to_the_stored_result() -> None:
    blocks = [block.text.strip().replace("\\\n", "") for block in shell_blocks(PAGE, downloads=True)]
    result = next(number for number, text in enumerate(blocks, 1) if '["result"]' in text)
    assert result == _COMMANDS
    assert not [text for text in blocks[:result] if "\n" in text], "one block is one command"


async def test_the_tutorial_works_as_it_is_written(ajc: Path, tmp_path: Path) -> None:
    # `ajc`, which the page builds, has had its modules downloaded
    (tmp_path / "ajhost").symlink_to(ROOT)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    said: list[str] = []
    async with AsyncExitStack() as stack:
        tool = golang.go()
        reader = Reader(stack, tmp_path, Path(tool), venv=tmp_path / ".venv")
        for cache in ("GOCACHE", "GOMODCACHE"):  # they lie in the home of who runs the tests
            reader.env[cache] = (await run(tool, "env", cache)).stdout.strip()
        reader.env["GOFLAGS"] = "-ldflags=-s"  # as in `golang.build`
        running = {}
        for block in shell_blocks(PAGE):
            if block.runs_on:
                name, ready = next((name, text) for name, text in _READY.items() if name in block.text)
                # the page goes on in the directory that the terminal is in by then
                running[name] = await reader.start(f"cd shop\n{block.text}" if ready else block.text, ready)
                continue
            said.append((await reader.run(block.text, again=_UNDER_WAY)).stdout)
            if block.text.startswith("sed -i"):
                await running["ajhost dev"].log.next("dev: reloaded in")
    assert running.keys() == _READY.keys()
    everything = "\n".join(said)
    assert "5 passed" in everything
    results = [json.loads(line) for line in re.findall(r'\{"sent".*?\}', everything)]
    assert [result["sent"] for result in results] == ["ada@example.net", "ADA@EXAMPLE.NET"]
    assert re.search(r"email:new .*│ complete +│ EMAIL │ 1", everything)
    assert re.search(r"email:new .*│ terminated +│ EMAIL │ 1", everything)
    assert '"last_err": "invalid payload: mail.to: field required: terminate task"' in everything
