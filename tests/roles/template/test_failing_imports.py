"""Imports that go wrong, and what is a handler."""

from __future__ import annotations

import asyncio

import pytest

from ajhost.adapters.linux import proc
from ajhost.roles.supervisor.template_process import TemplateFailed, rehearse
from tests.roles.template.driver import ENTRY, TIMEOUT, Start, TemplateDriver


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import sys\nsys.exit(3)\n", ["SystemExit: 3", 'acme.py", line 2, in <module>: sys.exit(3)']),
        ("raise KeyboardInterrupt\n", ["KeyboardInterrupt"]),
        ("def send(:\n", ["SyntaxError", "acme.py"]),
        ("import requestz\ndef send(task): ...\n", ["No module named 'requestz'", "import requestz"]),
        ("import os\nos._exit(3)\n", ["ended the process: exit status 3"]),
        ("import os\nos.kill(os.getpid(), 9)\n", ["ended the process: SIGKILL"]),
        ("import ctypes\nctypes.string_at(0)\n", ["ended the process: SIGSEGV", "acme.py", "line 2"]),
        ("raise RuntimeError('x' * 100_000)\n", ["x... (100014 characters)"]),
        ("class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd\n", ["acme.Odd"]),
    ],
)
async def test_an_import_that_goes_wrong_is_told_with_the_users_lines(
    driver: TemplateDriver, source: str, parts: list[str]
) -> None:
    driver.module("acme", source)
    (problem,) = await driver.problems(driver.plan())
    for part in parts:
        assert part in problem
    assert "importlib" not in problem
    assert "ajhost/roles" not in problem


@pytest.mark.parametrize(
    "hang",
    [
        "import time\n\ndef wait():\n    time.sleep(600)\nwait()\n",
        # holds the GIL in C
        "import ctypes\n\ndef wait():\n    ctypes.PyDLL(None).sleep(600)\nwait()\n",
    ],
)
async def test_an_import_that_hangs_ends_in_time_and_its_stacks_are_told(driver: TemplateDriver, hang: str) -> None:
    driver.module("acme", hang)
    async with asyncio.timeout(TIMEOUT):
        (problem,) = await driver.problems(driver.plan(), timeout=4.0)
    assert "did not end in time" in problem
    assert 'acme.py", line 4 in wait' in problem
    assert "ajhost/roles" not in problem


async def test_a_template_that_will_not_end_itself_is_killed(driver: TemplateDriver) -> None:
    driver.module("acme", "import faulthandler, time\nfaulthandler.cancel_dump_traceback_later()\ntime.sleep(600)\n")
    async with asyncio.timeout(TIMEOUT):
        (problem,) = await driver.problems(driver.plan(), timeout=4.0)
    assert "did not import the handlers in 4 s" in problem


async def test_what_an_import_prints_reaches_the_output(
    driver: TemplateDriver, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    driver.module("acme", "import sys\nprint('hello')\nprint('there', file=sys.stderr)\ndef send(task): ...\n")
    await start(driver.plan())
    assert capfd.readouterr() == ("hello\n", "there\n")


async def test_all_problems_are_told_at_once(driver: TemplateDriver) -> None:
    driver.module("bad", "1 / 0\n")
    driver.module(
        "odd",
        "import functools\nclass Send: ...\nnumber = 3\ndef two(a, b): ...\nasync def agen(t): yield\n"
        "def gen(t): yield\nnothing = None\npart = functools.partial(two, 1, 2, 3)\n",
    )
    spec = driver.plan(
        "bad:a",
        "bad:b",
        "acne:send",
        "acme:sent",
        "odd:Send",
        "odd:number",
        "odd:two",
        "odd:agen",
        "odd:gen",
        "odd.py:two",
        "odd:nothing",
        "odd:part",
    )
    problems = await driver.problems(spec)
    assert [problem.partition(": ")[0] for problem in problems] == [
        'handlers."r0", handlers."r1"',
        *(f'handlers."r{number}"' for number in range(2, 12)),
    ]
    for problem, part in zip(
        problems,
        (
            "ZeroDivisionError",
            "no module 'acne'; did you mean acme?",
            "no 'sent'; did you mean send?",
            "odd:Send is a class",
            "odd:number is a int",
            "odd:two(a, b) cannot be called with one argument",
            "odd:agen is a generator",
            "odd:gen is a generator",
            "no module 'odd.py'; did you mean odd?",
            "odd:nothing is a NoneType, which cannot be called",
            "odd:part is a partial with arguments that its function does not take",
        ),
        strict=True,
    ):
        assert part in problem


async def test_a_thousand_problems_are_all_told(driver: TemplateDriver) -> None:
    problems = await driver.problems(driver.plan(*(f"acme:missing{number}" for number in range(1000))))
    assert len(problems) == 1000


async def test_everything_that_can_be_called_with_a_task_is_a_handler(driver: TemplateDriver) -> None:
    driver.module(
        "many",
        """
        import functools
        async def plain(task): ...
        async def two(setting, task): ...
        partial = functools.partial(two, 1)
        class Object:
            async def __call__(self, task): ...
            async def method(self, task): ...
            @staticmethod
            def static(task): ...
        instance = Object()
        nested = functools.partial(instance)
        def decorate(function):
            @functools.wraps(function)
            def call(*args): return function(*args)
            return call
        decorated = decorate(plain)
        builtin = len
        """,
    )
    targets = {
        "many:plain": "async",
        "many:partial": "async",
        "many:instance": "async",
        "many:instance.method": "async",
        "many:Object.static": "thread",
        "many:nested": "async",
        "many:decorated": "async",
        "many:builtin": "thread",
    }
    spec = driver.plan(*targets)
    described, _ = await rehearse(spec.python, spec.handlers, TIMEOUT, entry=ENTRY)
    assert {found.target: found.kind for found in described} == targets


async def test_handlers_are_proven_with_the_real_worker_and_nothing_is_left_running(
    driver: TemplateDriver,
) -> None:
    spec = driver.plan("acme:send", "acme:sync", preload=False)
    alive = proc.children()
    described, _ = await rehearse(spec.python, spec.handlers, TIMEOUT)
    assert [(found.route, found.kind) for found in described] == [("r0", "async"), ("r1", "thread")]
    assert proc.children() == alive


async def test_handlers_that_cannot_be_proven_are_told_with_every_problem(driver: TemplateDriver) -> None:
    driver.module("hang", "import time\ntime.sleep(600)\n")
    spec = driver.plan("acme:sent", "acme:snyc")
    with pytest.raises(TemplateFailed) as failed:
        await rehearse(spec.python, spec.handlers, TIMEOUT)
    problems = failed.value.problems
    assert ["did you mean send" in problems[0], "did you mean sync" in problems[1]] == [True, True]
    spec = driver.plan("hang:send")
    with pytest.raises(TemplateFailed) as failed:
        await rehearse(spec.python, spec.handlers, 0.5)
    (problem,) = failed.value.problems
    assert "did not end in time" in problem
