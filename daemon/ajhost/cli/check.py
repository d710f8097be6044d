"""`ajhost check`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from ajhost.cli.common import EXIT_CONFIG, load_settings, own_config_option
from ajhost.cli.output import columns, echo, echo_error
from ajhost.settings.values import Settings

_EPILOG = """\b
Examples:
  ajhost check
  ajhost check -c ./ajhost.toml
  ajhost check --show | jq .workers
\b
Exit status: 0 all is well, 78 something is not (every problem on stderr).
"""


@click.command(epilog=_EPILOG)
@own_config_option
@click.option("--show", is_flag=True, help="Print the settings, defaults included, as JSON without secrets.")
def check(config: Path, show: bool) -> int:
    """Check the configuration and import the handlers.

    The import happens in a process of its own, as a start would do it. Nothing that runs is touched, and
    NATS is not contacted.
    """
    settings = load_settings(config)
    kinds, warnings, problems = _prove(settings)
    for warning in warnings:
        echo_error(f"{settings.file}: warning: the imports left something behind: {warning}")
    if problems:
        for problem in problems:
            echo_error(f"{settings.file}: {problem}")
        return EXIT_CONFIG
    if show:
        from ajhost.settings.redact import redacted

        echo(json.dumps(redacted(settings), indent=2, ensure_ascii=False))
    else:
        echo(_table(settings, kinds))
    return 0


def _prove(settings: Settings) -> tuple[dict[str, str], list[str], list[str]]:
    from ajhost.roles.template.template_process import TemplateFailed, rehearse

    python = settings.python
    try:
        found, warnings = asyncio.run(
            rehearse(python, settings.handlers, python.import_timeout, workers=settings.workers)
        )
    except TemplateFailed as failed:
        return {}, [], failed.problems
    return {handler.route: handler.kind for handler in found}, warnings, []


def _table(settings: Settings, kinds: dict[str, str]) -> str:
    rows: list[tuple[object, ...]] = [("ROUTE", "TARGET", "RUNS", "TIMEOUT")]
    for handler in settings.handlers:
        timeout = "the task's deadline" if handler.timeout is None else f"{handler.timeout:g} s"
        rows.append((handler.route or '""', handler.target, kinds[handler.route], timeout))
    count = len(settings.handlers)
    return f"{settings.file}: good, {count} handler{'s' if count > 1 else ''}\n\n{columns(rows)}"
