"""The program of a template process: makes `ajhost` importable in the handlers' interpreter (`python.interpreter`), or
reports what is wrong with that one, and runs the template. Its timer in C ends imports at `import_timeout`.

The supervisor starts it by its path. The interpreter may belong to a virtual environment without ajhost, or be an old
version, so this file uses the standard library and the syntax of Python 3.6 alone.
"""

import faulthandler
import gc
import importlib
import importlib.util
import json
import os
import platform
import signal
import socket
import sys
import sysconfig

OLDEST = (3, 11)


def main(order: dict) -> None:  # type: ignore[type-arg]  # Python 3.8 and older cannot say dict[str, object]
    """Runs the template. `order`: the arguments that `template_process.py` has written as JSON."""
    faulthandler.enable(file=order["stacks"])
    # as `ajhost stacks` asks for them
    faulthandler.register(order["stacks_signal"], file=order["stacks"], chain=False)
    # a thread in C, which needs no GIL: after the timeout it writes all stacks and ends the process
    faulthandler.dump_traceback_later(order["timeout"], exit=True, file=order["stacks"])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # ignored, since the supervisor ends the template; not SIG_IGN, which child processes would inherit
        signal.signal(number, lambda *_: None)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    own = sys.path[1:]  # without the directory of this file
    borrowed = [entry for entry in order["dependencies"] if entry not in own]
    fits = sysconfig.get_config_var("SOABI") == order["abi"]
    sys.path[:] = borrowed + own if fits else own
    sys.argv[:] = ["ajhost"]
    # A collection finds next to nothing among ajhost's own modules, and each walks through all of their objects: they
    # are exempt, those of the template after the handlers' imports included.
    gc.disable()
    try:
        if sys.version_info < OLDEST:
            raise ImportError(f"ajhost needs Python {OLDEST[0]}.{OLDEST[1]} or later")
        _load_package(order["package"])
        template = importlib.import_module("ajhost.roles.template.template")
        module, _, name = order["entry"].partition(":")
        run = getattr(importlib.import_module(module), name)
        importlib.import_module("setproctitle")  # processes.set_title imports it late
        importlib.import_module("ajhost.roles.template.host_libraries").import_early()
    except ImportError as error:
        _fail(order, _problem(order, error))
    gc.freeze()
    gc.enable()
    # from here on the environment's own packages come first
    sys.path[:] = own + (borrowed if fits else [])
    template.main(order["channel"], order["stacks"], order["parent"], run)


def _load_package(directory: str) -> None:
    """Imports `ajhost` from `directory` without putting its parent on sys.path: packages beside it may be built for
    another Python.
    """
    spec = importlib.util.spec_from_file_location(
        "ajhost", os.path.join(directory, "__init__.py"), submodule_search_locations=[directory]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["ajhost"] = package
    spec.loader.exec_module(package)


def _problem(order: dict, error: ImportError) -> str:  # type: ignore[type-arg]
    interpreter = order["interpreter"]
    who = f"python.interpreter: {interpreter} is Python {platform.python_version()}"
    if sys.version_info < OLDEST:
        return f"{who}; {error}"
    problem = f"{who}, where ajhost's modules cannot be imported: {error}"
    if sysconfig.get_config_var("SOABI") == order["abi"]:
        return problem
    return (
        f"{problem}. The host runs Python {order['python']} ({order['abi']}). "
        f"Install ajhost in that environment: {interpreter} -m pip install ajhost=={order['version']}"
    )


def _fail(order: dict, problem: str) -> None:  # type: ignore[type-arg]
    with socket.socket(fileno=order["channel"]) as channel:
        channel.send(json.dumps({"LoadProblems": {"problems": [problem]}}).encode())
    os._exit(1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
