"""`ajhost new`, `ajhost dev`, `ajhost routes`: a project from nothing, served while it is written."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import ajhost
from ajhost.adapters.nats.server_process import EmbeddedNatsServer
from ajhost.cli import dev_session
from ajhost.settings.toml_writer import toml_text
from tests.support import forked_commands

FOLDER = str(Path(ajhost.__path__[0]).parent)
ENV = {**os.environ, "PYTHONPATH": FOLDER, "NO_COLOR": "1"}
LIMIT = 30.0


def command(*arguments: str, cwd: Path, variables: Mapping[str, str] = ENV) -> subprocess.CompletedProcess[str]:
    return forked_commands.run(*forked_commands.PROGRAM, *arguments, env=variables, directory=cwd, timeout=LIMIT)


class Dev:
    """A running `ajhost dev`, or another command, on a terminal of its own, and what it showed there."""

    def __init__(self, project: Path, *arguments: str, env: dict[str, str], name: str = "dev") -> None:
        self.shown = ""
        self._seen = 0
        self._command = forked_commands.OnTerminal(
            *forked_commands.PROGRAM, name, *arguments, env=env, directory=project
        )
        self.process, self.terminal = self._command.pid, self._command.terminal

    def until(self, *texts: str) -> str:
        """Returns what was shown since the last time, as soon as one of the texts is in it."""
        end = time.monotonic() + LIMIT
        while not any(text in self.shown[self._seen :] for text in texts):
            ready, _, _ = select.select([self.terminal], [], [], max(end - time.monotonic(), 0))
            assert ready, f"{texts} not shown:\n{self.shown}"
            try:
                self.shown += os.read(self.terminal, 65536).decode(errors="replace").replace("\r\n", "\n")
            except OSError:
                raise AssertionError(f"it ended before {texts}:\n{self.shown}") from None
        found, self._seen = self.shown[self._seen :], len(self.shown)
        return found

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def end(self) -> int:
        """Ctrl-C; its exit status, which comes long before a handler that hangs would have ended."""
        self.type("\x03")
        return self._wait()

    def _wait(self) -> int:
        end = time.monotonic() + LIMIT
        while True:
            assert time.monotonic() < end, f"it does not end:\n{self.shown}"
            ready, _, _ = select.select([self.terminal], [], [], 0.05)
            if ready:
                try:
                    self.shown += os.read(self.terminal, 65536).decode(errors="replace")
                except OSError:  # nobody has the other end
                    break
        self.process = 0
        return self._command.wait()

    def close(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGTERM)
            self._wait()
        os.close(self.terminal)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = command("new", "shop", cwd=tmp_path)
    assert made.returncode == 0, made
    return tmp_path / "shop"


@pytest.fixture
def dev(project: Path) -> Iterator[Callable[..., Dev]]:
    running: list[Dev] = []

    def start(*arguments: str, colours: bool = False, variables: Mapping[str, str] = ENV) -> Dev:
        terminal = {"NO_COLOR": "", "TERM": "xterm"} if colours else {"TERM": "dumb"}
        running.append(Dev(project, *arguments, env={**variables, **terminal}))
        return running[-1]

    yield start
    for one in running:
        one.close()


def call(project: Path, *arguments: str, variables: Mapping[str, str] = ENV) -> tuple[int, str]:
    """`ajhost call` in the project, as from a second terminal: its status, and what it said."""
    done = command("call", *arguments, cwd=project, variables=variables)
    return done.returncode, (done.stdout + done.stderr).strip()


def edit(file: Path, old: str, new: str) -> None:
    """As an editor saves."""
    beside = file.with_suffix(".saving")
    beside.write_text(file.read_text().replace(old, new))
    beside.replace(file)


def test_each_parameter_and_result_of_a_new_project_has_a_type(project: Path) -> None:
    for file in project.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                types = [node.returns, *(argument.annotation for argument in node.args.args)]
                assert None not in types, f"{file.name}: {node.name}"


def test_a_new_project_is_good_and_shows_its_routes(project: Path) -> None:
    assert command("check", "-c", "ajhost.toml", cwd=project).returncode == 0
    table = command("routes", "-c", "ajhost.toml", cwd=project).stdout.splitlines()
    assert [line.split() for line in table[:2]] == [
        ["ROUTE", "HANDLER", "RUNS", "PAYLOAD", "LIMITS"],
        ["email:new", "handlers:send", "on", "the", "loop", "Mail", "30", "s"],
    ]
    schemas = json.loads(command("routes", "-c", "ajhost.toml", "--schema", cwd=project).stdout)
    assert schemas["email:new"]["required"] == ["to"]
    assert list(schemas) == ["email:new"]
    listed = json.loads(command("routes", "-c", "ajhost.toml", "--json", cwd=project).stdout)
    assert [(h["route"], h["kind"], h["payload"], h["timeout"]) for h in listed] == [
        ("email:new", "async", "Mail", 30.0),
        ("count", "thread", "str", None),
    ]


def test_routes_shows_every_limit(project: Path) -> None:
    limits = "timeout = 30.0\nconcurrency = 4\nhost_concurrency = 2"
    edit(project / "ajhost.toml", "timeout = 30.0", limits)
    (line,) = [
        line for line in command("routes", "-c", "ajhost.toml", cwd=project).stdout.splitlines() if "Mail" in line
    ]
    assert line.endswith("30 s, 4 at once in a worker, 2 at once in all")
    listed = json.loads(command("routes", "-c", "ajhost.toml", "--json", cwd=project).stdout)
    assert (listed[0]["concurrency"], listed[0]["host_concurrency"]) == (4, 2)


@pytest.mark.parametrize("arguments", [("routes",), ("check",), ("call", "email:new", "--timeout", "0.1")])
def test_settings_of_the_directory_are_hinted_at_where_none_are_installed(
    project: Path, arguments: tuple[str, ...]
) -> None:
    hint = "no `ajhost dev` runs in this directory, and ./ajhost.toml is not read unless it is named: -c ajhost.toml"
    assert hint in command(*arguments, cwd=project).stderr
    assert hint not in command(*arguments, cwd=project.parent).stderr


def test_files_that_are_there_are_not_touched(project: Path) -> None:
    again = command("new", ".", cwd=project)
    assert again.returncode == 2
    assert "handlers.py" in again.stderr


@pytest.mark.parametrize(
    ("directory", "enter"),
    [("my shop", "cd 'my shop'"), ("a/b", "cd a/b"), ("-x", "cd ./-x"), (".", "pytest")],
)
def test_a_new_project_says_how_to_enter_it_as_it_can_be_typed(tmp_path: Path, directory: str, enter: str) -> None:
    told = command("new", "--", directory, cwd=tmp_path)
    assert told.stdout.splitlines()[2].strip() == enter


def test_sources_are_watched_wherever_the_project_lies() -> None:
    watched = [Path("/home/ada/.work/shop")]
    assert dev_session.is_source(watched[0] / "src/mail.py", watched)
    for other in (".venv/x.py", "venv/lib/site-packages/x.py", ".#mail.py", "#mail.py#", "mail.pyc"):
        assert not dev_session.is_source(watched[0] / other, watched)


def test_a_project_is_served_and_reloaded_while_it_is_written(project: Path, dev: Callable[..., Dev]) -> None:
    session = dev()
    session.until("workers serve")
    status, said = call(project, "email:new", '{"to": "ada"}')
    assert (status, json.loads(said)["sent"]) == (0, "ada")
    assert "email:new" in session.until(": complete in ")
    assert call(project, "email:new", "{}") == (2, "AJ-Terminate: invalid payload: mail.to: field required")
    assert "mail.to: field required" in session.until(": AJ-Terminate in ")
    assert call(project, "count", "to be or not") == (0, "4")
    assert call(project, "coutn", "1") == (1, "AJ-Error: unknown task type: coutn has no handler here")
    status, said = call(project, "email:new", '{"to": "ajc"}', "--as-ajc")
    assert (status, json.loads(said)["sent"]) == (0, "ajc")
    session.until(": complete in ")

    edit(project / "handlers.py", "async def send(", "async def send((")
    shown = session.until("the last good code serves on")
    assert "SyntaxError" in shown
    assert "handlers.py" in shown
    assert call(project, "email:new", '{"to": "ada"}')[0] == 0

    edit(project / "handlers.py", "async def send((", "async def send(")
    session.until("dev: reloaded in")
    edit(project / "handlers.py", '"sent": mail.to', '"sent": mail.to.upper()')
    session.until("dev: reloaded in")
    status, said = call(project, "email:new", '{"to": "ada"}')
    assert json.loads(said)["sent"] == "ADA"

    edit(project / "ajhost.toml", "[handlers.count]", "[handlers.words]")
    session.until("dev: reloaded in")
    assert call(project, "words", "to be") == (0, "2")

    package = project.with_name("package")
    package.mkdir()
    (package / "__init__.py").touch()
    package.rename(project / "package")
    session.until("dev: reloaded in")
    assert session.end() == 0
    assert call(project, "words", "to be")[0] == 3


def test_a_terminal_with_colours_shows_them_in_place_of_their_codes(project: Path, dev: Callable[..., Dev]) -> None:
    session = dev(colours=True)
    session.until("workers serve")
    edit(project / "handlers.py", "async def send(", "async def send((")
    assert "\x1b[31mdev: not reloaded" in session.until("the last good code serves on")


def test_what_is_broken_at_the_start_is_served_when_it_is_mended(project: Path, dev: Callable[..., Dev]) -> None:
    edit(project / "handlers.py", "async def send(", "async def send((")
    session = dev("handlers:send", "handlers:count", "--route", "email:new", "--route", "words")
    assert "SyntaxError" in session.until("nothing is served; save a file to try again")
    edit(project / "handlers.py", "async def send((", "async def send(")
    session.until("workers serve")
    assert call(project, "email:new", '{"to": "ada"}')[0] == 0
    assert call(project, "words", "to be") == (0, "2")


def test_settings_that_name_no_handler_are_read_again_when_they_are_mended(
    project: Path, dev: Callable[..., Dev]
) -> None:
    edit(project / "ajhost.toml", "handlers:send", "handlers:sent")
    session = dev()
    assert "did you mean send" in session.until("nothing is served; save a file to try again")
    edit(project / "ajhost.toml", "handlers:sent", "handlers:send")
    session.until("workers serve")
    of_the_readme = re.findall("^    ajhost call (.*)$", (project / "README.md").read_text(), re.MULTILINE)
    answers = [call(project, *shlex.split(arguments, comments=True)) for arguments in of_the_readme]
    assert [status for status, _ in answers] == [0, 0]


def test_an_import_that_hangs_is_broken_off_by_the_next_save_and_by_ctrl_c(
    project: Path, dev: Callable[..., Dev]
) -> None:
    session = dev()
    session.until("workers serve")
    handlers, hang = (
        project / "handlers.py",
        "import asyncio\nprint('hangs', flush=True); import time; time.sleep(600)\n",
    )
    edit(handlers, "import asyncio\n", hang)
    session.until("hangs")
    assert call(project, "email:new", '{"to": "ada"}')[0] == 0, "the last good code serves"
    time.sleep(1.5)  # with the call, longer than an import that nothing breaks off
    edit(handlers, hang, "import asyncio\n")
    assert "handlers.py" in session.until("serves on"), "where it hung"
    session.until("dev: reloaded in")
    edit(handlers, "import asyncio\n", hang)
    session.until("hangs")
    assert session.end() == 0


@pytest.mark.parametrize("code", ["async def stuck(task):\n    time.sleep(60)\n", "def stuck(task): time.sleep(60)\n"])
def test_it_ends_at_once_whatever_a_handler_does(project: Path, dev: Callable[..., Dev], code: str) -> None:
    (project / "stuck.py").write_text(
        f"import time\n{code.replace('time.sleep', 'print(chr(33) + chr(33), flush=True) or time.sleep')}"
    )
    session = dev("stuck:stuck", "--workers", "1")
    session.until("workers serve")
    caller = subprocess.Popen(
        [sys.executable, "-m", "ajhost", "call", "stuck"], cwd=project, env=ENV, stderr=subprocess.DEVNULL
    )
    try:
        session.until("!!")
        session.type("\x03")  # who waits presses it again
        assert session.end() == 0
    finally:
        caller.kill()
        caller.wait()


def test_a_session_leaves_its_handlers_less_than_a_second_at_its_end() -> None:
    assert dev_session.DRAIN + dev_session.STOP_PATIENCE < 1


def test_a_second_ctrl_c_hurries_a_host_in_a_terminal(project: Path) -> None:
    stuck = "import time\ndef stuck(): print(chr(33) * 2, flush=True); time.sleep(60)\n"
    (project / "stuck.py").write_text(stuck)
    server = EmbeddedNatsServer(project / "nats")
    server.start()
    settings: dict[str, dict[str, object]] = {
        "nats": {"servers": [server.url]},
        "python": {"path": [project]},
        "runtime": {"directory": project / "run", "user": str(os.geteuid())},
        "handlers.stuck": {"target": "stuck:stuck"},
    }
    (project / "run.toml").write_text(toml_text(settings))
    host = Dev(project, "-c", "run.toml", env={**ENV, "TERM": "dumb"}, name="run")
    try:
        host.until("workers serve")
        arguments = [sys.executable, "-m", "ajhost", "call", "-c", "run.toml", "stuck"]
        with subprocess.Popen(arguments, cwd=project, env=ENV, stderr=subprocess.PIPE, text=True) as caller:
            host.until("!!")
            host.type("\x03")
            assert "a second signal hurries them" in host.until("workers, 1 tasks run")
            assert host.end() == 0
            assert "AJ-Error: draining: the host stopped before the task ended" in caller.communicate()[1]
    finally:
        host.close()
        server.stop()


def test_variables_lead_a_session_and_calls_beside_it_to_no_other_server_directory_or_path(
    project: Path, dev: Callable[..., Dev]
) -> None:
    variables = {
        **ENV,
        "AJHOST_NATS__SERVERS": '["nats://127.0.0.1:9"]',
        "AJHOST_NATS__TOKEN": "secret",
        "AJHOST_RUNTIME__DIRECTORY": str(project / "elsewhere"),
        "AJHOST_PYTHON__PATH": "[]",
        "AJHOST_WORKERS__COUNT": "5",
    }
    session = dev("email:new=handlers:send", "--workers", "1", variables=variables)
    session.until("ready: 1 workers serve")
    status, said = call(project, "email:new", '{"to": "ada"}', variables=variables)
    assert (status, json.loads(said)["sent"]) == (0, "ada")
    report = command("status", "--json", cwd=project, variables=variables)
    assert json.loads(report.stdout)["slots"] == 1
    assert not (project / "elsewhere").exists()


def test_a_debugger_has_the_terminal_and_all_the_time(project: Path, dev: Callable[..., Dev]) -> None:
    edit(project / "handlers.py", "    await asyncio.sleep(0.01)", "    breakpoint()")
    session = dev("--debug", "email:new=handlers:send")
    session.until("serving in this terminal")
    arguments = [sys.executable, "-m", "ajhost", "call", "email:new", '{"to": "ada"}', "--timeout", "1"]
    with subprocess.Popen(arguments, cwd=project, env=ENV, stdout=subprocess.PIPE, text=True) as caller:
        session.until("(Pdb) ")
        session.type("import time; time.sleep(1.2)\n")  # longer than the caller's second
        session.until("(Pdb) ")
        session.type("p mail.to + mail.to\n")
        assert "adaada" in session.until("(Pdb) ")
        session.type("c\n")
        out, _ = caller.communicate(timeout=LIMIT)
    assert json.loads(out)["sent"] == "ada"
    edit(project / "handlers.py", "    breakpoint()", "    mail.to = mail.to.upper()")
    session.until("starting again")
    session.until("serving in this terminal")
    _, said = call(project, "email:new", '{"to": "ada"}')
    assert json.loads(said)["sent"] == "ADA"


def test_a_session_that_is_killed_leaves_nothing_running(project: Path, dev: Callable[..., Dev]) -> None:
    session = dev()
    shown = session.until("workers serve")
    (server,) = re.findall(r"nats://127.0.0.1:(\d+)", shown)
    workers = [int(pid) for pid in re.findall(r"worker \d \(pid (\d+)\)", shown)]
    assert len(workers) == 2
    # the port alone may be another server's by then
    with socket.create_connection(("127.0.0.1", int(server)), timeout=LIMIT) as held:
        os.kill(session.process, signal.SIGKILL)
        end = time.monotonic() + LIMIT
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < end, session.shown
            time.sleep(0.05)
        with contextlib.suppress(ConnectionResetError):
            while held.recv(65536):
                pass


def test_a_context_leads_to_its_server_as_long_as_it_runs(
    project: Path, dev: Callable[..., Dev], monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = project.parent / "config" / "nats" / "context"
    monkeypatch.setitem(ENV, "XDG_CONFIG_HOME", str(project.parent / "config"))
    contexts.mkdir(parents=True)
    mine = contexts / "MINE.json"
    mine.write_text('{"description": "my own"}')
    refused = command("dev", "--context", "MINE", cwd=project)
    assert (refused.returncode, mine.read_text()) == (70, '{"description": "my own"}')
    assert f"{mine} is there already: give another name to --context" in refused.stderr
    left_by_a_killed = contexts / "AJC.json"
    left_by_a_killed.write_text('{"description": "ajhost dev, process 4194399", "url": "nats://127.0.0.1:1"}')
    session = dev("--context", "AJC")
    shown = session.until("workers serve")
    (server,) = re.findall(r"NATS is at (nats://[\d.:]+), the NATS context AJC", shown)
    assert json.loads(left_by_a_killed.read_text())["url"] == server
    assert left_by_a_killed.stat().st_mode & 0o777 == 0o600
    refused = command("dev", "--context", "AJC", cwd=project)
    assert f"is of another ajhost dev, process {session.process}: " in refused.stderr
    assert session.end() == 0
    assert [file.name for file in contexts.iterdir()] == ["MINE.json"]


@pytest.mark.parametrize("how", ["--lifespan", "-c", "--debug"])
def test_handlers_have_their_lifespan(project: Path, dev: Callable[..., Dev], how: str) -> None:
    source = "async def lifespan(worker):\n    yield 'opened'\nasync def show(task): return task.state\n"
    (project / "stateful.py").write_text(source)
    if how == "-c":
        text = '[python]\npath = ["."]\nlifespan = "stateful:lifespan"\n[handlers.show]\ntarget = "stateful:show"\n'
        (project / "stateful.toml").write_text(text)
        session = dev("-c", "stateful.toml")
    else:
        debug = ["--debug"] if how == "--debug" else []
        session = dev("stateful:show", "--lifespan", "stateful:lifespan", *debug)
    session.until("workers serve", "serving in this terminal")
    assert call(project, "show") == (0, "opened")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("shop.mail",), "names no handler: module:function"),
        (("m:f", "--route", "a", "--route", "b"), "2 routes for 1 handlers"),
        (("m:f", "n:f"), "the route 'f' has two handlers: m:f and n:f"),
        (("m:f", "--route", "a b"), 'm:f: found the route "a b", which no task type begins with'),
        (("a b=m:f",), 'a b=m:f: found the route "a b", which'),
        (("m:f-g",), "m:f-g: found"),
        (("m:f", "-c", "ajhost.toml"), "either handlers or settings"),
        ((), "there is no ./ajhost.toml"),
        (("m:f", "--server", "foo"), '--server: found "foo" without a scheme, allowed: nats://HOST:PORT'),
    ],
)
def test_what_cannot_be_served_is_told(tmp_path: Path, arguments: tuple[str, ...], part: str) -> None:
    told = command("dev", *arguments, cwd=tmp_path)
    assert told.returncode == 2
    assert part in told.stderr


def test_a_server_that_is_not_there_is_told_soon_and_without_its_password(project: Path) -> None:
    told = command("dev", "--server", "nats://ada:secret@127.0.0.1:1", cwd=project)
    assert told.returncode == 70
    assert "cannot reach NATS at nats://***@127.0.0.1:1" in told.stderr
    assert "secret" not in told.stdout + told.stderr


def test_settings_that_are_wrong_are_told_as_check_tells_them(project: Path) -> None:
    edit(project / "ajhost.toml", "timeout = 30.0", "timeuot = 30.0")
    told = command("dev", cwd=project)
    assert told.returncode == 78
    assert 'did you mean handlers."email:new".timeout' in told.stderr
