"""A handler that configures logging, at import or in a task, takes nothing away from the host's log or its own."""

from __future__ import annotations

import json

import pytest

from tests.support.factories import NewHost, StartHost
from tests.support.host import Section
from tests.support.router import Router, Verdict

APP = """
import logging, logging.config
{at_import}

async def configure(task):
    logging.config.dictConfig({{"version": 1, "disable_existing_loggers": True}})
    logging.shutdown()
    logging.basicConfig(force=True, handlers=[logging.NullHandler()])

async def fail(task):
    logging.getLogger("acme").warning("about to fail")
    print("printed by a handler")
    raise ValueError("told " + task.payload.decode())
"""
CONFIG = "logging.config.dictConfig({'version': 1, 'root': {'level': 'WARNING', 'handlers': []}})"


@pytest.mark.parametrize("at_import", ["", CONFIG])
async def test_failures_are_told_whatever_a_task_did_to_logging(
    new_host: NewHost, router: Router, at_import: str
) -> None:
    host = new_host(
        handlers={"fail": "app:fail", "configure": "app:configure"},
        modules={"app": APP.format(at_import=at_import)},
        sections={"workers": {"count": 1}, "log": {"format": "json"}},
    )
    async with host:
        for number in ("first", "second"):
            await router.request("fail", number.encode())
            line = await host.log(f"told {number}")
            assert json.loads(line.text)["role"] == "worker"
            await router.request("configure")
        text = host.log_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert [r["message"] for r in records].count("printed by a handler") == 2
    # once: the application has disabled its own logger then
    assert [r["message"] for r in records].count("about to fail") == 1
    for record in records:
        if record["message"] in ("printed by a handler", "about to fail"):
            assert record["type"] == "fail"


LOGGING_STREAM = """
class Stream:
    def write(self, text):
        if text.strip():
            logging.getLogger("stream").error(text.strip())
    def flush(self): ...
"""


@pytest.mark.parametrize(
    "streams", [f"{LOGGING_STREAM}sys.stdout = sys.stderr = Stream()", "sys.stdout = sys.stderr = None"]
)
async def test_streams_that_an_import_has_replaced_take_nothing_from_the_hosts_log(
    start_host: StartHost, router: Router, streams: str
) -> None:
    host = await start_host(
        handlers={"fail": "app:fail"},
        modules={"app": APP.format(at_import=f"import sys\n{streams}")},
        sections={"workers": {"count": 1}},
    )
    reply = await router.request("fail", b"once")
    assert "told once" in reply.text
    await host.log("worker 0: route 'fail': ValueError: told once")
    printed = len(host.output.having("worker 0: printed by a handler"))
    assert printed == ("Stream" in streams)


MISCHIEF = """
import io, logging, os, socket, sys

kept = []

def levels():
    for name in [None, *logging.root.manager.loggerDict]:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate, logger.disabled = False, True

def disable():
    logging.disable(logging.CRITICAL)

def filters():
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).addFilter(lambda record: False)

def factory():
    logging.setLogRecordFactory(lambda *a, **k: 1 / 0)

def names():
    logging.addLevelName(logging.ERROR, "\\x1b[31mERR\\n")

def patches():
    logging.Logger.callHandlers = logging.Logger.handle = lambda *a: None

def streams():
    sys.stderr.close()
    sys.stdout = sys.stderr = io.StringIO()

def reuse():
    os.close(2)
    kept.extend(socket.socketpair())
    assert 2 in (kept[0].fileno(), kept[1].fileno())

def size():
    raise ValueError("x" * 20_000_000)

def nothing():
    for end in kept:
        end.setblocking(False)
        try:
            raise AssertionError(end.recv(100))
        except BlockingIOError:
            pass

async def mischief(task):
    globals()[task.payload.decode()]()
    raise ValueError(f"told after {task.payload.decode()}")
"""
KINDS = ("levels", "disable", "filters", "factory", "names", "patches", "streams", "reuse", "size", "nothing")


@pytest.mark.parametrize("form", ["auto", "json"])
async def test_nothing_that_a_task_does_to_loggers_and_streams_silences_the_host(
    start_host: StartHost, router: Router, form: str
) -> None:
    host = await start_host(
        handlers={"mischief": "app:mischief"},
        modules={"app": MISCHIEF},
        sections={"workers": {"count": 1}, "log": {"format": form}},
    )
    before = host.workers()
    for kind in KINDS:
        reply = await router.request("mischief", kind.encode())
        assert reply.text.startswith("handler error: ValueError: "), (kind, reply)
        line = await host.log("xxxxxxxxxx" if kind == "size" else f"told after {kind}")
        if form == "json":
            assert json.loads(line.text)["level"] == "error"
        else:
            assert " ERROR   worker 0: " in line.text
    assert host.workers() == before
    assert not host.output.having("hangs")


PRINTS = """
import io, sys

def closes(task):
    for stream in (sys.stdout, sys.stderr):
        with stream as file:
            print("by whoever closes", file=file)
    for _ in range(2):
        sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)

def says(task):
    print(f"{task.payload.decode()} on stdout")
    print(f"{task.payload.decode()} on stderr", file=sys.stderr)
"""


@pytest.mark.parametrize("form", ["auto", "json"])
async def test_a_task_that_closes_the_standard_streams_takes_them_from_no_other(
    start_host: StartHost, router: Router, form: str
) -> None:
    host = await start_host(
        handlers={"closes": "app:closes", "says": "app:says"},
        modules={"app": PRINTS},
        sections={"workers": {"count": 1}, "log": {"format": form}},
    )
    assert (await router.request("closes")).verdict is Verdict.COMPLETE
    reply = await router.request("says", b"still heard")
    assert reply.verdict is Verdict.COMPLETE, reply
    for stream in ("stdout", "stderr"):
        await host.log(f"still heard on {stream}")


async def test_the_supervisor_obeys_the_levels_of_loggers_and_those_of_a_reload(
    start_host: StartHost,
) -> None:
    quiet: dict[str, Section] = {"log": {"level": "info", "levels": {"ajhost.supervisor": "error"}}}
    host = await start_host(sections=quiet)
    assert "starting 2 workers" not in host.log_text()
    host.configure({"echo": "echo"}, {"log": {"level": "info"}})
    assert (await host.reload()).status == 0
    await host.log("reloaded: generation 2 serves")
