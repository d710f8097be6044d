"""`ajhost dev`: serves handlers of the current directory with a NATS server of its own, for development. Decides by its
arguments what is served, by which route; `dev_session.py` does it.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import click

from ajhost.cli import exit_status
from ajhost.cli.output import echo_error
from ajhost.settings import value_parsers
from ajhost.settings.errors import InvalidValue

_EPILOG = """\b
Examples:
  ajhost dev shop.mail:send                      the route is the function's name: send
  ajhost dev shop.mail:send --route email:new
  ajhost dev email:new=shop.mail:send report:=shop.reports:make
  ajhost dev                                     what ./ajhost.toml says, on a server of its own
  ajhost dev --context AJC                       ajc and nats --context AJC find its server
  ajhost dev --debug                             breakpoint() works in handlers
\b
From a second terminal, in the same directory:
  ajhost call send '{"to": "ada"}'
  ajhost status
\b
Exit status: 0 stopped by Ctrl-C, 70 no NATS server or the context is another's, 78 bad configuration.
"""


@click.command(epilog=_EPILOG)
@click.argument("targets", nargs=-1, metavar="[[ROUTE=]MODULE:FUNCTION]...")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings to take handlers and limits from.  [default: ./ajhost.toml, if no handler is named]",
)
@click.option("--route", "routes", multiple=True, help="The route of a handler; one for each, in order.")
@click.option("--lifespan", metavar="MODULE:FUNCTION", help="The lifespan of each worker, beside the handlers named.")
@click.option("--server", metavar="URL", help="A NATS server that runs.  [default: one of its own, with JetStream]")
@click.option(
    "--context", metavar="NAME", help="Keep a NATS context of this name for the server: ajc and nats find it."
)
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.option("--debug", is_flag=True, help="One worker on this terminal, no deadlines: breakpoint() works.")
def dev(
    targets: Sequence[str],
    config: Path | None,
    routes: Sequence[str],
    lifespan: str | None,
    server: str | None,
    context: str | None,
    workers: int,
    debug: bool,
) -> int:
    """Serve handlers while they are written, and reload them on save.

    Each task is shown with its outcome and its time. Code that does not load leaves the last good one serving, and
    what is wrong is shown. Modules are looked for in this directory and in ./src. Ctrl-C ends it.
    """
    if importlib.util.find_spec("watchfiles") is None:
        echo_error("ajhost dev needs watchfiles to reload on save: pip install 'ajhost[dev]'")
        return exit_status.CANNOT_START
    from ajhost.adapters.nats.server_process import NatsServerFailed
    from ajhost.cli.dev_session import ContextInUse, DevSession

    if config is None and not targets:
        config = Path("ajhost.toml")
        if not config.exists():
            raise click.UsageError("name a handler, module:function, or settings with -c; there is no ./ajhost.toml")
    if server is not None:
        try:
            value_parsers.server(server)
        except InvalidValue as error:
            raise click.UsageError(f"--server: {error}") from None
    if context is not None and (not context or "/" in context or ".." in context):
        raise click.UsageError(f"--context: {context!r} is no name of a NATS context")
    handlers = _handlers(targets, routes)
    if config is not None and (handlers or lifespan):
        raise click.UsageError("either handlers or settings, -c FILE, say what is served")
    served = config and config.absolute()
    session = DevSession(Path.cwd(), served, handlers, lifespan, server, context, workers, debug)
    try:
        return asyncio.run(session.run())
    except (NatsServerFailed, ContextInUse) as error:
        echo_error(str(error))
        return exit_status.CANNOT_START
    except OSError as error:
        echo_error(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
        return exit_status.CANNOT_START


def _handlers(targets: Sequence[str], routes: Sequence[str]) -> dict[str, str]:
    if len(routes) > len(targets):
        raise click.UsageError(f"{len(routes)} routes for {len(targets)} handlers")
    handlers: dict[str, str] = {}
    given = list(routes)
    for target in targets:
        named, equals, rest = target.rpartition("=")
        module, colon, function = rest.partition(":")
        if not colon or not module or not function:
            raise click.UsageError(f"{target!r} names no handler: module:function, or route=module:function")
        route = named if equals else given.pop(0) if given else function.rpartition(".")[2]
        try:  # no change of a file could mend these
            value_parsers.route(route)
            value_parsers.target(rest)
        except InvalidValue as error:
            raise click.UsageError(f"{target}: {error}") from None
        if route in handlers:
            raise click.UsageError(f"the route {route!r} has two handlers: {handlers[route]} and {rest}")
        handlers[route] = rest
    return handlers
