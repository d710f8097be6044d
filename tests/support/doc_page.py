"""The commands of a page of the docs, run as they stand."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import sysconfig
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import ajhost
from tests.support.program import CommandResult, Program, run

ROOT = Path(__file__).parents[2]
_BARE = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
"""Arguments of a pytest of its own: a plugin that it does not use takes it as long as all the rest."""
_BLOCK = re.compile(r"(?:<!-- (.*?) -->\n)?```sh\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """Commands of one terminal. `runs_on`: the last one does not end by itself."""

    text: str
    runs_on: bool


def shell_blocks(page: str, *, downloads: bool = False) -> list[Block]:
    """What of a page is to be run, in order; a comment before a block says if it is not, or runs on.

    `downloads`: with those that are not run, since they would download.
    """
    found = _BLOCK.findall((ROOT / page).read_text())
    return [Block(text, mark == "runs on") for mark, text in found if downloads or "not run" not in mark]


class Reader:
    """Somebody who types what a page says, in terminals that begin in one directory."""

    def __init__(self, stack: AsyncExitStack, home: Path, *tools: Path, venv: Path | None = None) -> None:
        """`tools` are on PATH, by their names up to a hyphen. What runs on ends with `stack`.

        `venv`: the environment that is active beside the one of the tests.
        """
        self._stack = stack
        self._home = home
        (home / "bin").mkdir()
        for tool in tools:
            (home / "bin" / tool.name.partition("-")[0]).symlink_to(tool)
        activated = () if venv is None else (str(venv / "bin"),)
        places = (str(home / "bin"), *activated, sysconfig.get_path("scripts"), os.environ["PATH"])
        self.env: dict[str, str] = {
            **os.environ,
            "HOME": str(home),
            # what ~/.config is to programs that ask the system for ~
            "XDG_CONFIG_HOME": str(home / ".config"),
            "PATH": os.pathsep.join(places),
            "PYTHONPATH": str(Path(ajhost.__path__[0]).parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": " ".join(_BARE),
            **({} if venv is None else {"VIRTUAL_ENV": str(venv)}),
        }

    async def start(self, commands: str, ready: str | None) -> Program:
        """Runs what runs on; returns when it has written `ready`."""
        first, _, last = commands.rstrip().rpartition("\n")
        program = Program("bash", "-euc", f"{first}\nexec {last}", env=self.env, cwd=self._home)
        await self._stack.enter_async_context(program)
        if ready is not None:
            await program.log.next(ready)
        return program

    async def run(self, commands: str, again: str | None = None) -> CommandResult:
        """Runs the commands to their end, again and again while the pattern `again` is found in what they write."""
        for _ in range(100):
            done = await run(*("bash", "-euo", "pipefail", "-c", commands), env=self.env, cwd=self._home, timeout=120)
            if again is None or not re.search(again, done.stdout + done.stderr):
                assert done.status == 0, (commands, done)
                return done
            await asyncio.sleep(0.1)  # others have to go on meanwhile
        raise AssertionError(f"{commands} still says {again}: {done.stdout}")


def run_tests(directory: Path, *options: str) -> str:
    """Runs the tests of somebody else's project, which must pass, with ajhost on its path; what pytest printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *_BARE, *options],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(Path(ajhost.__path__[0]).parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
