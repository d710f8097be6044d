"""The program `ajhost`: its commands, and the exit status of one that fails or is interrupted.

Only the module of the command that runs is imported, and the modules for its work when it does that.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from ajhost import __version__
from ajhost.adapters.linux import standard_streams
from ajhost.cli import exit_status

_COMMANDS = (
    "new", "dev", "run", "check", "routes", "call", "status", "top", "tasks", "attempts", "stacks", "reload",
    "recycle", "cancel", "drain", "resume",
)  # fmt: skip
"""Each is the name of a module of this package, and of the command in it."""

_EPILOG = """\b
Examples:
  ajhost new shop; cd shop; ajhost dev
  ajhost check -c ./ajhost.toml
  ajhost run -c ./ajhost.toml
  ajhost call -c ./ajhost.toml email:new '{"to": "ada@example.net"}'
  ajhost status
  ajhost top
  ajhost tasks --older 10s
  ajhost stacks
  ajhost reload
  ajhost cancel 2aXwYqBbD7sJmZ0qkHfVQ9kS1oT
  ajhost drain --wait
\b
Each command has a --help of its own. The configuration: ajhost.toml(5).
"""


class _Program(click.Group):
    """The group of all commands. It imports only the command that runs."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns the command of that name; `self.commands` has only names."""
        if cmd_name not in self.commands:
            return None
        module = importlib.import_module(f"ajhost.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(
    cls=_Program,
    commands={name: click.Command(name) for name in _COMMANDS},
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def program() -> None:
    """Host Python handlers for Choria AsyncJobs."""


def main(arguments: Sequence[str] | None = None, prog_name: str = "ajhost") -> NoReturn:
    """Runs the command that `arguments` (default: those of the process) name, and exits.

    Exit statuses: 2 wrong usage, 3 no host, 78 bad configuration, 130 interrupted; each command's --help has others.
    """
    standard_streams.open_streams()
    try:
        result = program.main(arguments, prog_name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        result = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        result = exit_status.INTERRUPTED
    sys.exit(result or 0)
