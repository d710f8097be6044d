"""`ajhost routes`: shows which handler serves which task, which payload it takes, and its limits in words."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ajhost.cli import exit_status
from ajhost.cli.options import config_option, load_settings
from ajhost.cli.output import columns, echo, echo_error, to_json
from ajhost.settings.sections import HandlerSettings, Settings

if TYPE_CHECKING:
    from ajhost.roles.handlers import HandlerDescription

_EPILOG = """\b
Examples:
  ajhost routes
  ajhost routes --json | jq '.[] | select(.payload)'
  ajhost routes --schema
\b
Exit status: 0 shown, 78 the configuration or a handler is wrong (every problem on stderr).
"""


@click.command(epilog=_EPILOG)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs; the schemas are in it.")
@click.option("--schema", is_flag=True, help="Print the JSON Schemas of the payloads, by route.")
def routes(config: Path, as_json: bool, schema: bool) -> int:
    """Show each route, its handler, the type of its payload, and its limits.

    The handlers are imported, as `ajhost check` does it. Nothing that runs is touched.
    """
    settings = load_settings(config)
    from ajhost.roles.supervisor.template_process import TemplateFailed, rehearse

    python = settings.python
    try:
        found, _ = asyncio.run(rehearse(python, settings.handlers, python.import_timeout, schemas=as_json or schema))
    except TemplateFailed as failed:
        for problem in failed.problems:
            echo_error(f"{settings.origin}: {problem}")
        return exit_status.BAD_CONFIGURATION
    described = {handler.route: handler for handler in found}
    if schema and not as_json:
        schemas = {h.route: json.loads(h.schema) for h in described.values() if h.schema}
        echo(to_json(schemas, 2))
    elif as_json:
        listed = [_object(handler, described[handler.route]) for handler in settings.handlers]
        echo(to_json(listed, 2))
    else:
        echo(_table(settings, described))
    return 0


def _object(handler: HandlerSettings, loaded: HandlerDescription) -> dict[str, Any]:
    return {
        "route": handler.route,
        "target": handler.target,
        "kind": loaded.kind,
        "payload": loaded.payload or None,
        "timeout": handler.timeout,
        "concurrency": handler.concurrency,
        "host_concurrency": handler.host_concurrency,
        "max_crashes": handler.max_crashes,
        "schema": json.loads(loaded.schema) if loaded.schema else None,
    }


def _table(settings: Settings, described: dict[str, HandlerDescription]) -> str:
    rows: list[tuple[object, ...]] = [("ROUTE", "HANDLER", "RUNS", "PAYLOAD", "LIMITS")]
    for handler in settings.handlers:
        loaded = described[handler.route]
        limits = []
        if handler.timeout is not None:
            limits.append(f"{handler.timeout:g} s")
        if handler.concurrency is not None:
            limits.append(f"{handler.concurrency} at once in a worker")
        if handler.host_concurrency is not None:
            limits.append(f"{handler.host_concurrency} at once in all")
        runs = "on the loop" if loaded.kind == "async" else "in a thread"
        shown = ", ".join(limits) or "the task's deadline"
        rows.append((handler.route or '""', handler.target, runs, loaded.payload or "untyped", shown))
    return columns(rows)
