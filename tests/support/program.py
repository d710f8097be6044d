"""Other programs as peers: run to their end, or kept for the length of a test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.support import forked_commands
from tests.support.forked_commands import PROGRAM
from tests.support.process_log import Log

__all__ = ["PROGRAM", "CommandResult", "Program", "run"]


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command left: its exit status and both outputs."""

    status: int
    stdout: str
    stderr: str


async def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    timeout: float = 60.0,
) -> CommandResult:
    """Runs a command to its end. Raises TimeoutError after `timeout` s, the command then being killed."""
    if stdin is None:
        result = await _run_forked(command, os.environ if env is None else env, cwd, timeout)
        if result is not None:
            return result
    process = await asyncio.create_subprocess_exec(
        *command,
        env=env,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        stdout, stderr = await asyncio.wait_for(process.communicate(stdin), timeout)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return CommandResult(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


async def _run_forked(
    command: Sequence[str | Path], env: Mapping[str, str], cwd: Path | None, timeout: float
) -> CommandResult | None:
    (ours, theirs), (our_errors, their_errors) = os.pipe(), os.pipe()
    output, errors = os.fdopen(ours, "rb"), os.fdopen(our_errors, "rb")
    try:
        process = await forked_commands.start(
            command, env=env, directory=cwd or Path.cwd(), output=theirs, errors=their_errors
        )
    finally:
        os.close(theirs)
        os.close(their_errors)
    if process is None:
        output.close()
        errors.close()
        return None
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await asyncio.gather(_whole(output), _whole(errors))
            status = await process.wait()
    finally:
        process.kill()
        await process.wait()
    return CommandResult(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


async def _whole(pipe: IO[bytes]) -> bytes:
    """What comes through a pipe until its end."""
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), pipe
    )
    try:
        return await stream.read()
    finally:
        transport.close()


class Program:
    """A program that runs while the block does, its output readable as it comes; then it is terminated."""

    def __init__(self, *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self._command = command
        self._env = env
        self._cwd = cwd

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._env,
            cwd=self._cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        self.log = Log(self._process.stdout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self.log.ended()
        if error is not None:
            self.explain(error)

    def explain(self, error: BaseException) -> None:
        """Adds the output to a failure."""
        error.add_note(f"the output of {self._command[0]}:\n{self.log.text()}")
