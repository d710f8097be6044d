"""`ajhost new`: writes a project with a handler, its test and settings, unless one of its files is there already."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from ajhost.cli.output import echo

_EPILOG = """\b
Examples:
  ajhost new shop && cd shop
  pytest
  ajhost dev
\b
Exit status: 0 written, 2 a file is there already, or cannot be written.
"""

_HANDLERS = '''"""Handlers: each function serves one type of task."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ajhost import Task, TerminateTask


@dataclass
class Mail:
    """The payload, validated from JSON. Anything that pydantic knows will do, its models too."""

    to: str
    text: str = ""


async def send(mail: Mail, task: Task) -> dict[str, str]:
    """Pretends to send a mail. `async def` shares the worker's loop: it must not block."""
    if mail.to == "nobody":
        raise TerminateTask("there is no such address")  # no further try makes sense
    await asyncio.sleep(0.01)  # any other exception fails this attempt; the router tries again later
    return {"sent": mail.to, "key": task.id}  # task.id is the same at each attempt: the key for idempotency


def count(text: str) -> int:
    """A plain function runs in a thread, where blocking is fine."""
    return len(text.split())
'''

_TESTS = '''"""Handlers run as a worker runs them, without one; and once with a real host."""

from __future__ import annotations

from ajhost.testing import run_sync
from ajhost.testing.pytest_plugin import StartHost

from handlers import count, send


def test_a_mail_is_sent() -> None:
    assert run_sync(send, {"to": "ada"}).json()["sent"] == "ada"


def test_an_unknown_address_ends_the_task() -> None:
    outcome = run_sync(send, {"to": "nobody"})
    assert (outcome.terminated, outcome.error) == (True, "there is no such address")


def test_a_mail_without_a_recipient_is_refused() -> None:
    assert run_sync(send, {}).error == "invalid payload: mail.to: field required"


def test_words_are_counted() -> None:
    assert run_sync(count, "to be or not").json() == 4


def test_a_real_host_serves(ajhost_host: StartHost) -> None:
    host = ajhost_host("handlers:send")
    assert host.call("email:new", {"to": "ada"}).json()["sent"] == "ada"
'''

_SETTINGS = """# For `ajhost dev`, and for `ajhost run -c ajhost.toml`. Every key: man ajhost.toml.

[nats]
servers = ["nats://127.0.0.1:4222"]     # `ajhost dev` starts a server of its own instead

[python]
path = ["."]

[handlers."email:new"]
target = "handlers:send"
timeout = 30.0

[handlers.count]
target = "handlers:count"
"""

_README = """# {name}

Handlers for Choria AsyncJobs, served by ajhost. In each terminal, the environment in which `ajhost[dev]` is installed
comes first: `. .venv/bin/activate`.

    pytest                                              # the handlers' tests
    ajhost dev                                          # serves them, on a NATS server of its own; reloads on save
    ajhost call email:new '{{"to": "ada"}}'               # from a second terminal: what a router would send
    ajhost call count 'to be or not to be'

- `handlers.py`: the functions. What a handler gets and returns: docs/handlers.md of ajhost.
- `ajhost.toml`: which function serves which type of task. `ajhost routes -c ajhost.toml` shows them.
- `test_handlers.py`: tests with `ajhost.testing`.

On a NATS server with a router: `ajhost check -c ajhost.toml && ajhost run -c ajhost.toml`.
"""

_IGNORED = "__pycache__/\n.pytest_cache/\n.venv/\n"


@click.command(epilog=_EPILOG)
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
def new(directory: Path) -> int:
    """Write a project into DIR: handlers, their tests, settings and a README, all of which work.

    DIR is made if need be. No file that is there is touched.
    """
    name = directory.absolute().resolve().name
    # os.path returns False for a directory that this user may not enter; Path.exists raises PermissionError
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise click.UsageError(f"{directory} is no directory")
    files = {
        "handlers.py": _HANDLERS,
        "test_handlers.py": _TESTS,
        "ajhost.toml": _SETTINGS,
        "README.md": _README.format(name=name),
        ".gitignore": _IGNORED,
    }
    if there := [file for file in files if os.path.exists(directory / file)]:
        raise click.UsageError(f"{directory} has {', '.join(there)} already; name a directory without")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (directory / file).write_text(text)
    except OSError as error:
        raise click.UsageError(f"{error.filename or directory}: {error.strerror or error}") from None
    place = f"./{directory}" if str(directory).startswith("-") else str(directory)
    enter = "" if directory.samefile(Path.cwd()) else f"    cd {shlex.quote(place)}\n"
    echo(f"{directory}: {', '.join(files)}\n\n{enter}    pytest\n    ajhost dev")
    return 0
