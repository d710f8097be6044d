"""What a command and a worker import: each module is CPU of every start, and memory of every worker."""

from __future__ import annotations

import subprocess
import sys

import pytest

COSTLY = {
    "aiohttp",
    "asyncio",
    "nats",
    "prometheus_client",
    "prompt_toolkit",
    "pydantic",
    "ssl",
    "uvicorn",
    "uvloop",
}


def imported(code: str) -> set[str]:
    """The costly modules that an interpreter has imported after `code`."""
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.__stderr__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return COSTLY & set(done.stderr.split())


def command(words: str) -> str:
    return f"from ajhost.cli.main import main\ntry:\n    main({words.split()!r})\nexcept SystemExit:\n    pass"


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        ("import ajhost", set()),
        (command("--version"), set()),
        (command("status --help"), set()),
        (command("reload --help"), set()),
        (command("--help"), {"asyncio", "ssl"}),
        ("import ajhost.roles.worker.main", {"asyncio", "nats", "ssl", "uvloop"}),
    ],
)
def test_what_is_costly_is_imported_by_those_who_need_it(code: str, needed: set[str]) -> None:
    assert imported(code) <= needed
