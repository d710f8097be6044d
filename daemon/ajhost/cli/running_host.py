"""Finds the running host that a command is for, checks that it has the named settings, and sends it requests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ajhost.cli import exit_status
from ajhost.cli.options import BadConfiguration
from ajhost.cli.output import CommandFailed, echo, echo_error
from ajhost.core.timings import CONTROL_ANSWER_LIMIT


class NoHost(CommandFailed):
    """No host runs, or this user cannot reach it. The text says why, for people."""

    exit_code = exit_status.NO_HOST


def runtime_directory(config: Path) -> Path:
    """Returns the runtime directory that the configuration names, even if it has errors elsewhere.

    :raises BadConfiguration: the file cannot be read, or its `[runtime]` table is wrong.
    """
    from ajhost.settings.errors import InvalidValue
    from ajhost.settings.runtime_table import runtime_directory as find

    try:
        return find(config)
    except OSError as error:
        hint = "; ask as root or as a member of the host's group" if isinstance(error, PermissionError) else ""
        raise BadConfiguration(f"{error.filename or config}: {error.strerror or error}{hint}") from None
    except InvalidValue as error:
        raise BadConfiguration(f"{config}: {error}") from None


@contextlib.contextmanager
def asking(directory: Path) -> Iterator[None]:
    """Turns the errors of requests to the host in `directory`, which are sent in its block, into `NoHost`.

    :raises NoHost: no host runs, or this user cannot reach it.
    """
    from ajhost.roles.status_reader import NotRunning

    try:
        yield
    except NotRunning as error:
        raise NoHost(str(error)) from None
    except OSError as error:
        denied = isinstance(error, PermissionError)
        hint = "; ask as root or as the user that the host runs as" if denied else ""
        raise NoHost(f"{error.filename or directory}: {error.strerror or error}{hint}") from None


def check_meant(directory: Path, config: Path) -> None:
    """:raises NoHost: the host in `directory` was started with another file than `config`."""
    from ajhost.roles.control_client import settings_of
    from ajhost.roles.supervisor.state_file import another_host

    runs_on = settings_of(directory)
    if runs_on is not None and (problem := another_host(directory, runs_on, config)) is not None:
        raise NoHost(problem)


def ask_host(
    config: Path,
    asked: dict[str, object],
    *,
    limit: float = CONTROL_ANSWER_LIMIT,
    late: str = "no answer within {:g} s: `ajhost status` says whether the supervisor hangs",
    quiet: bool = False,
) -> int:
    """Sends a request to the running host's control socket, and prints its answer.

    :param limit: seconds until the answer must be there; `late`: the text that is printed after that.
    :param quiet: prints nothing if the host has done it.
    :returns: the exit status: 0 done, 1 refused or no answer in time.
    :raises NoHost: no host runs, or this user cannot reach it.
    """
    directory = runtime_directory(config)
    from ajhost.roles.control_client import control

    with asking(directory):
        try:
            done, text = control(directory, limit, asked | {"settings": config})
        except TimeoutError:
            echo_error(late.format(limit))
            return exit_status.NO
    if not done:
        echo_error(text)
    elif not quiet:
        echo(text)
    return exit_status.OK if done else exit_status.NO
