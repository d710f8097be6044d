"""The program `ajhost`: its commands, and the exit status for each kind of error.

Each command imports what it needs when it runs, so that `ajhost --help` imports click alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from ajhost import __version__
from ajhost.adapters.linux import inherited
from ajhost.cli import exit_status
from ajhost.cli.attempts import attempts
from ajhost.cli.call import call
from ajhost.cli.cancel import cancel
from ajhost.cli.check import check
from ajhost.cli.common import BadConfiguration
from ajhost.cli.dev import dev
from ajhost.cli.drain import drain, resume
from ajhost.cli.new import new
from ajhost.cli.output import OutputFailed, echo_error
from ajhost.cli.reload import reload
from ajhost.cli.routes import routes
from ajhost.cli.run import run
from ajhost.cli.stacks import recycle, stacks
from ajhost.cli.status import status, tasks
from ajhost.cli.top import top

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


@click.group(
    epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def program() -> None:
    """Host Python handlers for Choria AsyncJobs."""


for _command in (
    new, dev, run, check, routes, call, status, top, tasks, attempts, stacks, reload, recycle, cancel, drain, resume,
):  # fmt: skip
    program.add_command(_command)


def main(arguments: Sequence[str] | None = None, prog_name: str = "ajhost") -> NoReturn:
    """Runs the command that `arguments` (default: those of the process) name, and exits.

    Exit statuses: 2 wrong usage, 78 bad configuration, 130 interrupted; others are listed in each command's --help.
    """
    inherited.open_streams()
    try:
        result = program.main(arguments, prog_name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        result = error.exit_code
    except BadConfiguration as error:
        echo_error(str(error))
        result = exit_status.BAD_CONFIGURATION
    except OutputFailed as error:
        if not error.is_pipe:
            echo_error(str(error))
        result = error.status
    except (click.Abort, KeyboardInterrupt):
        result = exit_status.INTERRUPTED
    sys.exit(result or 0)
