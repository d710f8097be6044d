"""What an import leaves behind: it is told by name, and what workers must not share is refused."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.roles.template.driver import Fork, Start, TemplateDriver

HANDLER = "\ndef send(task): ...\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def place(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


LEFT = {
    "a file": ("KEPT = open(__file__)\n", "the file {app}/acme.py is open"),
    "a file that is written": ("KEPT = open('{app}/out', 'a')\n", "the file {app}/out is open"),
    "a locked file": (
        "import fcntl\nKEPT = open('{app}/lock', 'w')\nfcntl.flock(KEPT, fcntl.LOCK_EX)\n",
        "the file {app}/lock is locked",
    ),
    "a record lock": (
        "import fcntl\nKEPT = open('{app}/lock', 'w')\nfcntl.lockf(KEPT, fcntl.LOCK_EX)\n",
        "the file {app}/lock is locked",
    ),
    "a listening port": (
        "import socket\nKEPT = socket.create_server(('127.0.0.1', 0))\n",
        "a socket listens on 127.0.0.1:",
    ),
    "a listening unix socket": (
        "import socket\nKEPT = socket.socket(socket.AF_UNIX)\nKEPT.bind('{app}/s')\nKEPT.listen()\n",
        "a socket that listens on unix:{app}/s is open",
    ),
    "a bound socket of datagrams": (
        "import socket\nKEPT = socket.socket(type=socket.SOCK_DGRAM)\nKEPT.bind(('127.0.0.1', 0))\n",
        "a socket that receives at 127.0.0.1:",
    ),
    "a pair of sockets": ("import socket\nKEPT = socket.socketpair()\n", "a pair of sockets is open"),
    "an event loop": (
        "import asyncio\nKEPT = asyncio.new_event_loop()\n",
        "an epoll instance, that of an event loop is open",
    ),
    "a pipe": ("import os\nKEPT = os.pipe()\n", "a pipe is open"),
    "an eventfd": ("import os\nKEPT = os.eventfd(0)\n", "an eventfd is open"),
    "a thread": (
        "import threading\nKEPT = threading.Thread(target=threading.Event().wait, name='acme poller', daemon=True)\n"
        "KEPT.start()\n",
        "the thread acme poller runs in no worker",
    ),
    "a child": (
        "import subprocess\nKEPT = subprocess.Popen(['sleep', '60'])\n",
        "the process sleep (pid ",
    ),
    "a handler of a signal": (
        "import signal\ndef KEPT(*_): ...\nsignal.signal(signal.SIGUSR1, KEPT)\n",
        "SIGUSR1 has the handler acme.KEPT: every worker has it",
    ),
    "a handler that the host undoes": (
        "import signal\nKEPT = signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n",
        "SIGCHLD has SIG_IGN: the host does not keep it",
    ),
    "a handler in C": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]\n"
        "KEPT = libc.signal(12, ctypes.cast(libc.abs, ctypes.c_void_p))\n",
        "SIGUSR2 has a handler in C",
    ),
    "a timer": (
        "import signal\nKEPT = signal.setitimer(signal.ITIMER_REAL, 600)\n",
        "a timer that sends SIGALRM runs in no worker",
    ),
    "the default timeout": (
        "import socket\nKEPT = socket.setdefaulttimeout(7)\n",
        "the default timeout of sockets is 7 s",
    ),
    "a patch": (
        "import time\ndef KEPT(): return 0.0\ntime.time = KEPT\n",
        "acme has replaced time.time, which the host calls too",
    ),
    "a patch of asyncio": (
        "import asyncio\ndef KEPT(): ...\nasyncio.get_event_loop = KEPT\n",
        "acme has replaced asyncio.get_event_loop, which the host calls too",
    ),
    "a limit": (
        "import resource\nKEPT = resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n",
        "RLIMIT_NOFILE is 200, it was ",
    ),
    "slow hooks": (
        "import os, time\nKEPT = os.register_at_fork(before=lambda: time.sleep(0.6))\n",
        "a fork takes 0.",
    ),
}


@pytest.mark.parametrize("what", LEFT)
async def test_what_does_no_harm_by_itself_is_told_and_served(
    driver: TemplateDriver, start: Start, fork: Fork, what: str
) -> None:
    source, said = (text.replace("{app}", str(driver.app)) for text in LEFT[what])
    driver.module("acme", source + HANDLER)
    template = await start(driver.plan())
    assert [said in warning for warning in template.warnings].count(True) >= 1, template.warnings
    assert (await (await fork(template)).report())["slot"] == 0


RINGING = """
import signal
class Late(Exception): ...
def ring(number, frame):
    if frame.f_code.co_filename.endswith("channel.py"):  # not in the import, however long it takes
        raise Late
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
"""


async def test_a_timer_of_an_import_whose_handler_raises_does_not_end_the_template(
    driver: TemplateDriver, start: Start, fork: Fork
) -> None:
    driver.module("acme", RINGING + HANDLER)
    template = await start(driver.plan())
    assert any("a timer that sends SIGALRM" in warning for warning in template.warnings), template.warnings
    await asyncio.sleep(0.1)
    assert (await (await fork(template)).report())["slot"] == 0


CONNECTIONS = {
    "tcp": "import socket\nKEPT = socket.create_connection(('127.0.0.1', {port}))\n",
    "tcp under way": (
        "import socket\nKEPT = socket.socket()\nKEPT.setblocking(False)\nKEPT.connect_ex(('127.0.0.1', {port}))\n"
    ),
    "udp": "import socket\nKEPT = socket.socket(type=socket.SOCK_DGRAM)\nKEPT.connect(('127.0.0.1', {port}))\n",
    "a descriptor that Python does not know": (
        "import os, socket\nsock = socket.create_connection(('127.0.0.1', {port}))\nKEPT = os.dup(sock.fileno())\n"
        "sock.close()\n"
    ),
    "beside a default timeout": (
        "import socket\nsocket.setdefaulttimeout(3)\nKEPT = socket.create_connection(('127.0.0.1', {port}))\n"
    ),
}


@pytest.mark.parametrize("what", CONNECTIONS)
async def test_a_connection_is_refused_with_its_peer_and_the_cures(
    driver: TemplateDriver, listener: socket.socket, what: str
) -> None:
    driver.module("acme", CONNECTIONS[what].replace("{port}", str(listener.getsockname()[1])) + HANDLER)
    (problem,) = await driver.problems(driver.plan())
    assert f"to {place(listener)} is open" in problem
    assert f'python.allow_open = ["{place(listener)}"]' in problem
    assert "python.preload = false" in problem


RESULTS = {
    "ProcessPoolExecutor": "from concurrent.futures import ProcessPoolExecutor\nKEPT = ProcessPoolExecutor(1)\n",
    "Pool": "from multiprocessing import Pool\nKEPT = Pool(1)\n",
    "cat": "import subprocess\nKEPT = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n",
}
NO_RESULTS = (
    "import subprocess\nfrom concurrent.futures import ProcessPoolExecutor\nfrom multiprocessing import Pool\n"
    "from multiprocessing.pool import ThreadPool\nTHREADS = ThreadPool(1)\n"
    "with Pool(1) as pool, ProcessPoolExecutor(1) as executor:\n"
    "    pool.map(len, ['a']), executor.submit(len, 'a').result()\n"
    "KEPT = subprocess.Popen(['true'], stdout=subprocess.PIPE)\nKEPT.stdout.read()\nKEPT.wait()\n"
)


@pytest.mark.parametrize("name", RESULTS)
async def test_what_would_give_each_worker_the_results_of_others_is_refused_by_name(
    driver: TemplateDriver, start: Start, name: str
) -> None:
    driver.module("acme", RESULTS[name] + HANDLER)
    plan = driver.plan()
    (problem,) = await driver.problems(plan)
    assert name in problem
    assert f'python.allow_open = ["{name}"]' in problem
    await start(replace(plan, python=replace(plan.python, allow_open=(name,))))
    await start(driver.plan(preload=False))


async def test_a_pool_that_an_import_has_used_up_is_none_of_ours(driver: TemplateDriver, start: Start) -> None:
    driver.module("acme", NO_RESULTS + HANDLER)
    await start(driver.plan())


async def test_a_connection_over_a_unix_socket_is_refused_and_the_system_log_is_not(
    driver: TemplateDriver, start: Start
) -> None:
    path = driver.app / "db.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        server.bind(str(path))
        server.listen()
        driver.module("acme", f"import socket\nKEPT = socket.socket(socket.AF_UNIX)\nKEPT.connect('{path}')" + HANDLER)
        (problem,) = await driver.problems(driver.plan())
        assert f"a connection to unix:{path} is open" in problem
        log.bind(str(driver.app / "log"))
        driver.module(
            "acme",
            "import socket\nfrom ajhost.roles.template import import_effects\n"
            f"import_effects._SYSLOG = ({str(driver.app / 'log')!r},)\n"
            f"KEPT = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\nKEPT.connect({str(driver.app / 'log')!r})"
            + HANDLER,
        )
        assert (await start(driver.plan())).warnings == []


async def test_a_connection_that_is_allowed_or_not_shared_is_none_of_ours(
    driver: TemplateDriver, start: Start, listener: socket.socket
) -> None:
    source = CONNECTIONS["tcp"].replace("{port}", str(listener.getsockname()[1]))
    driver.module("acme", source + HANDLER)
    plan = driver.plan()
    for pattern in (place(listener), "127.0.0.1:*"):
        allowed = replace(plan, python=replace(plan.python, allow_open=(pattern,)))
        assert (await start(allowed)).warnings == []
    assert (await start(driver.plan(preload=False))).warnings == []
    other = replace(plan, python=replace(plan.python, allow_open=("127.0.0.2:*",)))
    assert len(await driver.problems(other)) == 1


async def test_a_connection_that_an_import_closed_again_is_none(
    driver: TemplateDriver, start: Start, listener: socket.socket
) -> None:
    source = CONNECTIONS["tcp"].replace("{port}", str(listener.getsockname()[1]))
    driver.module("acme", f"{source}KEPT.close()\nKEPT = None{HANDLER}")
    assert (await start(driver.plan())).warnings == []
    # nor one that only a cycle of garbage holds
    driver.module("acme", f"{source}cycle = [KEPT]\ncycle.append(cycle)\ndel cycle\nKEPT = None{HANDLER}")
    assert (await start(driver.plan())).warnings == []


async def test_a_port_that_each_worker_would_bind_again_is_refused(driver: TemplateDriver) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver.module("acme", f"import socket\nKEPT = socket.create_server(('127.0.0.1', {port}))" + HANDLER)
    plan = driver.plan(preload=False)
    (problem,) = await driver.problems(replace(plan, workers=replace(plan.workers, count=2)))
    assert f"a socket listens on 127.0.0.1:{port}, and each of 2 workers would bind the port again" in problem


HOOKS = {
    "that hangs in the child": (
        "import os, time\ndef acme_hook(): time.sleep(600)\nKEPT = os.register_at_fork(after_in_child=acme_hook)\n",
        ["did not end within", "in acme_hook"],
    ),
    "that ends the child": (
        "import os\nKEPT = os.register_at_fork(after_in_child=lambda: os._exit(3))\n",
        ["ended the forked process: exit status 3"],
    ),
    "that takes too long in front of a fork": (
        "import os, time\nKEPT = os.register_at_fork(before=lambda: time.sleep(4.5))\n",
        ["took 4.5 s before a fork", "no worker can be forked"],
    ),
}


@pytest.mark.parametrize("what", HOOKS)
async def test_a_fork_hook_with_which_no_worker_can_be_made_is_named(driver: TemplateDriver, what: str) -> None:
    source, parts = HOOKS[what]
    driver.module("acme", source + HANDLER)
    (problem,) = await driver.problems(driver.plan())
    for part in parts:
        assert part in problem


OF_THE_PROCESS = {
    "too few descriptors": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n",
        ["RLIMIT_NOFILE is 20, it was ", "(resource.setrlimit)", "each worker has it, and needs 64"],
    ),
    "another user": (
        "import os\nos.setuid(65534)\n",
        ["the user is 65534, it was 0 (os.setuid)", "`user` in [runtime]"],
    ),
    "another root directory": (
        "import os\nos.chroot({app!r})\n",
        ["the root directory is another (os.chroot)"],
    ),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize("what", OF_THE_PROCESS)
async def test_what_keeps_each_worker_from_serving_is_refused_by_name(driver: TemplateDriver, what: str) -> None:
    source, parts = OF_THE_PROCESS[what]
    driver.module("acme", source.replace("{app!r}", repr(str(driver.app))) + HANDLER)
    (problem,) = await driver.problems(driver.plan())
    for part in parts:
        assert part in problem


async def test_a_library_of_greenlets_in_the_hosts_place_is_refused(driver: TemplateDriver) -> None:
    driver.module(
        "gevent", "class Thread: ...\ndef patch_all():\n    import threading\n    threading.Thread = Thread\n"
    )
    driver.module("acme", "import gevent\nKEPT = gevent.patch_all()\n" + HANDLER)
    for preload in (True, False):
        (problem,) = await driver.problems(driver.plan(preload=preload))
        assert "gevent has replaced threading.Thread" in problem


async def test_a_native_thread_is_named_by_its_library(driver: TemplateDriver, start: Start) -> None:
    driver.module(
        "acme",
        """
        import ctypes, ctypes.util, os, pathlib, time
        library = ctypes.CDLL(ctypes.util.find_library("nats"))
        assert library.nats_Open(ctypes.c_int64(-1)) == 0  # it starts its threads
        thread = ctypes.c_ulong()
        library.pthread_create(ctypes.byref(thread), None, ctypes.cast(library.pause, ctypes.c_void_p), None)
        # the kernel tells where a thread is that waits; those of the library wait when they have begun
        threads = [task for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
        assert len(threads) > 1
        while any(pathlib.Path(f"/proc/self/task/{task}/syscall").read_text() == "running\\n" for task in threads):
            time.sleep(0.001)
        def send(task): ...
        """,
    )
    warnings = (await start(driver.plan())).warnings
    assert any("the thread a native thread of libnats.so" in warning for warning in warnings), warnings
    assert any("an unnamed native thread" in warning for warning in warnings), warnings
