"""The host of `ajhost dev --debug`: one process on the terminal, one task at a time, no deadlines.

`python -m ajhost.cli.debug_host -c FILE`. Handlers are bound, run and answered as in a worker, but on the main thread's
loop, so that `breakpoint()` has the terminal and no time limit. There is no supervisor: if this process dies, the task
that it runs gets no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path

import click

from ajhost.adapters.logs.log_outputs import configure
from ajhost.adapters.nats.dev_client import serve
from ajhost.api import Task
from ajhost.cli import exit_status
from ajhost.cli.options import BadConfiguration, load_settings
from ajhost.cli.output import echo, echo_error
from ajhost.core.route_match import Routes
from ajhost.protocol.outcome import Failed, Outcome
from ajhost.protocol.reasons import FailureReason
from ajhost.protocol.subjects import host_subjects, route_of
from ajhost.protocol.task_record import read_task
from ajhost.protocol.unwrap import unwrap
from ajhost.roles.handlers import LoadedHandler, LoadFailed, load_handlers
from ajhost.settings.sections import LogSettings, Settings
from ajhost.testing.run_handler import as_stored, execute, lifespan

_NO_DEADLINE = 365 * 86_400.0


@click.command()
@click.option("-c", "--config", type=click.Path(path_type=Path), required=True)
def main(config: Path) -> None:
    """Serves until it is ended."""
    try:
        settings = load_settings(config)
        sys.path[:0] = [os.path.realpath(entry) for entry in settings.python.path]
        handlers = load_handlers(settings.handlers, settings.python)
    except (BadConfiguration, LoadFailed) as error:
        echo_error(str(error))
        sys.exit(exit_status.BAD_CONFIGURATION)
    configure(LogSettings(settings.log.level), "debug")
    asyncio.run(_serve(settings, handlers))


async def _serve(settings: Settings, handlers: dict[str, LoadedHandler]) -> None:
    routes = Routes(handlers)

    async def answer(subject: str, body: bytes) -> tuple[dict[str, str], bytes]:
        outcome = await _outcome(subject, body, routes, handlers, state)
        result, error, terminated = as_stored(outcome, len(body))
        if error is None:
            return {}, result or b""
        return {"AJ-Terminate" if terminated else "AJ-Error": error}, b""

    subjects = host_subjects(handlers, settings.nats.catchall)
    target = settings.python.lifespan
    async with contextlib.nullcontext() if target is None else lifespan(target) as state:
        await serve(
            settings.nats.servers[0],
            settings.nats.queue_group,
            subjects,
            answer,
            lambda: echo("dev: serving in this terminal, one task at a time, without deadlines"),
        )


async def _outcome(
    subject: str, body: bytes, routes: Routes, handlers: dict[str, LoadedHandler], state: object
) -> Outcome:
    try:
        record = read_task(body)
        route = routes.match(route_of(subject), record.type)
        if route is None:
            return Failed.because(FailureReason.UNKNOWN_TASK_TYPE, f"{record.type} has no handler here")
        handler = handlers[route]
        payload = unwrap(record.payload) if handler.unwrap else None
    except ValueError as error:
        return Failed.because(FailureReason.BAD_REQUEST, str(error))
    return await execute(handler, Task(record, time.monotonic() + _NO_DEADLINE, payload, state))


if __name__ == "__main__":
    main()
