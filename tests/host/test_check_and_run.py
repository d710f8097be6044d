"""`check` is the start without the queue group: of the same settings and surroundings both say good, or both bad."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import seccomp
from tests.support.factories import NewHost
from tests.support.host import Host, HostFailed
from tests.support.nats import NatsServer, free_port
from tests.support.program import run

APP = "async def send(task): return b''\ndef report(task): return b''\n"
BROKEN, SERVES = False, True
SECCOMP = Path(seccomp.__file__)


@dataclass(frozen=True)
class Case:
    """Settings and surroundings. `{app}`, `{port}` (listened on) and `{free}` are filled in."""

    serves: bool
    app: str = APP
    settings: str = ""
    handlers: dict[str, Any] = field(default_factory=lambda: {"a": "app:send"})
    env: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Host], None] | None = None
    launcher: tuple[str | Path, ...] = ()
    """What starts the program: it gets that as its last arguments."""
    says: str = ""
    """What both say."""


def setting(table: str, line: str, serves: bool = BROKEN) -> Case:
    return Case(serves, settings=f"[{table}]\n{line}\n")


def module(source: str, serves: bool = BROKEN, settings: str = "") -> Case:
    return Case(serves, app=source + "\n" + APP, settings=settings)


def target(text: Any, serves: bool = BROKEN) -> Case:
    return Case(serves, handlers={"a": text})


def _secret(host: Host, name: str, text: str, mode: int = 0o600) -> None:
    path = host.directory / name
    path.write_text(text)
    path.chmod(mode)


def secret(name: str, text: str, line: str, mode: int = 0o600, serves: bool = BROKEN) -> Case:
    return Case(serves, settings=f"[nats]\n{line}\n", prepare=lambda host: _secret(host, name, text, mode))


def drop_in(text: str, serves: bool = BROKEN) -> Case:
    def write(host: Host) -> None:
        (host.directory / "conf.d").mkdir()
        (host.directory / "conf.d" / "1.toml").write_text(text)

    return Case(serves, prepare=write)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def pipe(name: str) -> Case:
    """A FIFO, which nobody writes to."""
    return Case(BROKEN, prepare=lambda host: os.mkfifo(_made((host.directory / name).parent) / "1.toml"))


def shell(line: str, serves: bool = BROKEN, says: str = "", settings: str = "") -> Case:
    """With a line of the shell's before it, like `ulimit -n 60`."""
    return Case(serves, settings=settings, launcher=("/bin/sh", "-c", f'{line}; exec "$@"', "sh"), says=says)


def refused(call: str, number: int, says: str) -> Case:
    """Below a seccomp filter."""
    return Case(BROKEN, launcher=(sys.executable, SECCOMP, call, str(number)), says=says)


def mounted(how: str, says: str) -> Case:
    """With a file system of the case's own, `{runtime}` being the runtime directory."""
    line = f'mount -t tmpfs {how} && exec "$@"'
    return Case(BROKEN, launcher=("unshare", "-m", "/bin/sh", "-c", line, "sh"), says=says)


def runtime(change: Callable[[Path], None], serves: bool = BROKEN) -> Case:
    return Case(serves, prepare=lambda host: change(host.runtime))


def _linked(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.elsewhere"))
    path.symlink_to(path.with_name(f"{path.name}.elsewhere"))
    os.lchown(path, 12345, 12345)


def _as_file(path: Path) -> None:
    path.rmdir()
    path.write_text("")


CONNECT = "import socket\nKEPT = socket.create_connection(('127.0.0.1', {port}))"
CASES = {
    "all is well": Case(SERVES),
    "a thread": Case(SERVES, handlers={"a": "app:report"}),
    "no handlers": Case(BROKEN, handlers={}),
    # settings
    "an unknown table": setting("wrokers", "count = 1"),
    "an unknown key": setting("workers", "cuont = 1"),
    "a wrong type": setting("workers", 'count = "many"'),
    "too many workers": setting("workers", "count = 5000"),
    "no workers": setting("workers", "count = 0"),
    "a negative backlog": setting("workers", "backlog = -1"),
    "an endless time": setting("workers", "drain_timeout = inf"),
    "no number": setting("workers", "kill_grace = nan"),
    "a small memory": setting("workers", 'max_memory = "1K"'),
    "no syntax": Case(BROKEN, settings="[workers\n"),
    "a key twice": Case(BROKEN, settings="[log]\nlevel = 'info'\nlevel = 'debug'\n"),
    "a level that is none": setting("log", 'level = "loud"'),
    "a scheme that is none": setting("nats", 'servers = ["http://127.0.0.1"]'),
    "no scheme": setting("nats", 'servers = ["127.0.0.1:4222"]'),
    "a server with an empty part": setting("nats", 'servers = ["nats://a..b:4222"]'),
    "a group of 5,000 characters": setting("nats", f'queue_group = "{"q" * 5000}"'),
    "a group with an end": setting("nats", 'queue_group = "a\\u0000b"'),
    "an inbox of the server's own": setting("nats", 'inbox_prefix = "$JS.API"'),
    "prefixes that nobody is answered on": setting("nats", 'reply_prefixes = ["$JS"]'),
    "no servers": setting("nats", "servers = []"),
    "a wildcard for a group": setting("nats", 'queue_group = "a.*"'),
    "a user without a password": setting("nats", 'user = "ada"'),
    "a password without a user": setting("nats", 'password = "x"'),
    "two identities": setting("nats", 'user = "ada"\npassword = "x"\ntoken = "y"'),
    "a context that is not there": setting("nats", 'context = "nosuch"'),
    "a key that is none": setting("signature", 'keys = ["abc"]'),
    "a path that is not there": setting("python", 'path = ["nosuch"]'),
    "an interpreter that is not there": setting("python", 'interpreter = "/nosuch/python"'),
    "an interpreter that is none": setting("python", 'interpreter = "/bin/true"'),
    "an import timeout of nothing": setting("python", "import_timeout = 0"),
    "an address that is none": setting("http", 'listen = "9464"'),
    "a port in use": setting("http", 'listen = "127.0.0.1:{port}"'),
    "a port that is free": setting("http", 'listen = "127.0.0.1:{free}"', SERVES),
    "an address of somebody else": setting("http", 'listen = "192.0.2.1:{free}"'),
    "a host whose name has no end": setting("http", f'listen = "{"a" * 64}.example:{{free}}"'),
    "a host with an empty part": setting("http", 'listen = "a..b:{free}"'),
    "a host that has no address": setting("http", 'listen = "nosuch.invalid:{free}"'),
    "a relative runtime directory": setting("runtime", 'directory = "x"'),
    "a runtime directory that is too long": setting("runtime", f'directory = "/tmp/{"x" * 120}"'),
    "a bad drop-in": drop_in("[log]\nlevel = 'loud'\n"),
    "a drop-in with a byte of its own": drop_in(
        "[log]\n# \udcff\n".encode(errors="surrogateescape").decode("latin-1"), SERVES
    ),
    "a drop-in that is a pipe": pipe("conf.d/1.toml"),
    "a drop-in without an end": Case(
        BROKEN,
        prepare=lambda host: (_made(host.directory / "conf.d") / "1.toml").symlink_to("/dev/zero"),
    ),
    "a drop-in that leads to itself": Case(
        BROKEN, prepare=lambda host: (_made(host.directory / "conf.d") / "1.toml").symlink_to("1.toml")
    ),
    "a number of 5,000 digits": setting("workers", f"backlog = {'9' * 5000}"),
    "a number of 20,000 bits": setting("workers", f"backlog = 0x{'f' * 5000}"),
    "lists in lists": setting("nats", f"servers = {'[' * 3000}{']' * 3000}"),
    "tables in tables": setting("nats", f"{'a.' * 3000}b = 1"),
    "a route of 5,000 characters": Case(BROKEN, handlers={"r" * 5000: "app:send"}),
    "a route that is none": Case(BROKEN, handlers={"a b": "app:send"}),
    "the route catchall": Case(BROKEN, handlers={"catchall": "app:send"}),
    # secrets
    "creds that are none": secret("x.creds", "nothing", 'creds = "x.creds"'),
    "creds that are not there": setting("nats", 'creds = "x.creds"'),
    "creds for everybody": secret("x.creds", "nothing", 'creds = "x.creds"', 0o644),
    "a seed that is none": secret("x.nk", "SUXXX", 'nkey = "x.nk"'),
    "an empty password": secret("pw", "", 'user = "ada"\npassword_file = "pw"'),
    "a password of two lines": secret("pw", "a\nb\n", 'user = "ada"\npassword_file = "pw"'),
    "a password for everybody": secret("pw", "a\n", 'user = "ada"\npassword_file = "pw"', 0o644),
    "a password in an open file": Case(
        BROKEN,
        settings='[nats]\nuser = "ada"\npassword = "x"\n',
        prepare=lambda host: host.file.chmod(0o644),
    ),
    "settings that everybody may write": Case(BROKEN, prepare=lambda host: host.file.chmod(0o666)),
    "a certificate that is none": secret("ca.pem", "nothing", '[nats.tls]\nca = "ca.pem"'),
    "an authority that is broken": secret(
        "ca.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        '[nats.tls]\nca = "ca.pem"',
    ),
    # modules
    "no such module": target("nosuch:send"),
    "no such function": target("app:nosuch"),
    "a target that is none": target("app"),
    "a class": Case(BROKEN, app="class send: ...\n"),
    "no function": Case(BROKEN, app="send = 3\n"),
    "no argument": Case(SERVES, app="def send(): ...\n"),
    "a generator": Case(BROKEN, app="def send(task): yield 1\n"),
    "a syntax error": Case(BROKEN, app="def send(:\n"),
    "an exception": module("1 / 0"),
    "an exit": module("raise SystemExit(0)"),
    "a hard exit": module("import os; os._exit(0)"),
    "a crash": module("import ctypes; ctypes.string_at(0)"),
    "a signal": module("import os; os.kill(os.getpid(), 9)"),
    "a hang": module("import time; time.sleep(600)", BROKEN, "[python]\nimport_timeout = 1.0\n"),
    # what imports leave
    "a connection": module(CONNECT),
    "a connection for each worker": module(CONNECT, SERVES, "[python]\npreload = false\n"),
    "a connection that is allowed": module(CONNECT, SERVES, '[python]\nallow_open = ["127.0.0.1:*"]\n'),
    "a file": module("KEPT = open(__file__)", SERVES),
    "a port": module("import socket\nKEPT = socket.create_server(('127.0.0.1', 0))", SERVES),
    "a port for each worker": module(
        "import socket\nKEPT = socket.create_server(('127.0.0.1', {free}))",
        BROKEN,
        "[python]\npreload = false\n",
    ),
    "threads": module("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", SERVES),
    "a hook that ends the child": module("import os\nos.register_at_fork(after_in_child=lambda: os._exit(3))"),
    "a hook that hangs in the child": module(
        "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(600))"
    ),
    "a hook that raises": module("import os\nos.register_at_fork(after_in_child=lambda: 1 / 0)", SERVES),
    "a hook that closes every descriptor": module(
        "import os\nos.register_at_fork(after_in_child=lambda: os.closerange(3, 1000))"
    ),
    "a default timeout": module("import socket\nsocket.setdefaulttimeout(1)", SERVES),
    "signals": module("import signal\nfor n in (2, 15, 1, 17): signal.signal(n, signal.SIG_IGN)", SERVES),
    "threads that cannot be started": module(
        "import threading\nclass Thread: ...\nThread.__module__ = 'gevent.thread'\nthreading.Thread = Thread"
    ),
    "an exit in each worker": module(
        "import os\nif os.getsid(0) == os.getpid() and os.path.exists('/proc/%d/root' % os.getppid()):\n"
        "    import sys\n    if 'template' not in open('/proc/self/cmdline').read(): os._exit(5)",
        BROKEN,
        "[python]\npreload = false\n",
    ),
    "a loop that is none": module("import asyncio\nasyncio.get_running_loop = lambda: None"),
    "standard streams that are closed": module("import os\nos.close(1), os.close(2)", SERVES),
    "a collector that is off": module("import gc\ngc.disable()", SERVES),
    # surroundings
    "a runtime directory that others write": runtime(lambda path: path.chmod(0o777)),
    "a runtime directory of another user": runtime(lambda path: os.chown(path, 12345, 12345)),
    "a runtime directory that is another user's link": runtime(_linked),
    "a runtime directory that is a file": runtime(_as_file),
    "a runtime directory with a directory in the way": runtime(lambda path: (path / "control").mkdir(), SERVES),
    "a runtime directory with a file in the way": runtime(lambda path: (path / "ledger").touch(), SERVES),
    "a runtime directory that is not there yet": runtime(lambda path: path.rmdir(), SERVES),
    "too few descriptors": shell(
        "ulimit -n 60",
        settings="[workers]\ncount = 40\n",
        says="this process may have 60 (ulimit -Hn, LimitNOFILE=)",
    ),
    "too few descriptors for two workers": shell("ulimit -n 40", says="2 workers need 50 open files"),
    "a limit of files' size": shell("ulimit -f 1000", says="less than a ledger: ulimit -f, LimitFSIZE="),
    "no unix sockets": refused("socket", 1, "the sandbox allows no such sockets: RestrictAddressFamilies="),
    "no inodes in the runtime directory": mounted("-o nr_inodes=5,mode=750 none {runtime}", ""),
    "no right to write in the runtime directory": mounted("-o ro,mode=750 none {runtime}", "Read-only file system"),
    "a soft limit of descriptors below the hard one": shell("ulimit -Sn 20", SERVES),
    "no /proc": mounted("none /proc", "/proc: found no file system of processes, allowed: our own"),
    "a mask that takes everything": shell("umask 0777", SERVES),
    "no memory to lock and no core dumps": shell("ulimit -l 0 -c 0", SERVES),
    "warnings that are errors": Case(SERVES, env={"PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2"}),
    "a locale that is none": Case(SERVES, env={"LC_ALL": "xx_XX.UTF-8", "TZ": ":/nosuch"}),
    "no HOME": Case(SERVES, env={"HOME": ""}),
    "a variable that is no text": Case(BROKEN, env={"AJHOST_NATS__QUEUE_GROUP": "\udcff"}),
    "a variable that does not end": Case(BROKEN, env={"AJHOST_NATS__SERVERS": "[" * 5000}),
    "a variable that is none": Case(SERVES, env={"AJHOST_X": "1"}),
}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


async def verdict_of_run(host: Host) -> tuple[bool, str]:
    """Whether it came to serve, and its log."""
    await host.launch()
    try:
        await host.ready()
    except HostFailed as failed:
        return False, str(failed)
    return True, host.log_text()


# of each kind of case every fourth: they stand in the order of their kinds
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (number % 4 != 0)) for number, name in enumerate(CASES)],
)
async def test_check_and_run_agree(
    nats_server: NatsServer, listener: socket.socket, new_host: NewHost, name: str
) -> None:
    case = CASES[name]
    port, free = listener.getsockname()[1], free_port()

    def filled(text: str) -> str:
        return text.replace("{port}", str(port)).replace("{free}", str(free))

    host = new_host(
        handlers={"a": "app:send"},
        modules={"app": filled(case.app)},
        env=case.env,
    )
    host.launcher = tuple(str(part).replace("{runtime}", str(host.runtime)) for part in case.launcher)
    try:
        sections: dict[str, Any] = {"workers": {"count": 2}} if "count" not in case.settings else {}
        host.configure(case.handlers, {"python": {"import_timeout": 20.0}, **sections})
        merge(host, filled(case.settings))
        if case.prepare is not None:
            case.prepare(host)
        check = (part if part != "run" else "check" for part in host.program)
        checked = await run(*host.launcher, *check, env=host.environment, timeout=60.0)
        served, log = await verdict_of_run(host)
        assert served is case.serves, log
        assert (checked.status == 0) is served, f"check: {checked}\nrun: {log}"
        assert case.says in checked.stderr
        assert case.says in log
    finally:
        await host.destroy()
        if host.runtime.is_symlink() or stat.S_ISREG(_mode(host.runtime)):
            host.runtime.unlink()


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _key(line: str) -> str:
    return line.partition("=")[0].strip().strip('"')


def merge(host: Host, text: str) -> None:
    """Puts the case's tables over the host's own: a table of both becomes one, the case's keys last."""
    if not text:
        return
    own: dict[str, list[str]] = {}
    order: list[str] = []
    for source in (host.file.read_text(), text):
        table = ""
        for line in source.splitlines():
            if line.startswith("[") and line.rstrip().endswith("]"):
                table = line
                continue
            if table not in own:
                own[table] = []
                order.append(table)
            if source is text and _key(line):
                own[table] = [kept for kept in own[table] if _key(kept) != _key(line) or kept in text]
            own[table].append(line)
    host.write_settings("\n".join(f"{table}\n" + "\n".join(own[table]) for table in order))


def test_there_are_enough_of_them() -> None:
    assert sum(not case.serves for case in CASES.values()) >= 60
    json.dumps(sorted(CASES))
