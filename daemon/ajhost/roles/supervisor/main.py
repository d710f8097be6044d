"""Runs the supervisor's process: takes the lock of the runtime directory, and refuses to start (`cannot start:`) beside
another host, or where the machine lacks something (`adapters/linux/requirements.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ajhost.adapters.linux import os_error_texts, processes, requirements, runtime_directory, tcp
from ajhost.adapters.linux.runtime_directory import UnfitDirectory
from ajhost.adapters.systemd.notify import Notifier
from ajhost.roles.supervisor.runtime_files import RuntimeFiles
from ajhost.roles.supervisor.supervisor import StartupFailed, Supervisor, configure_log
from ajhost.settings.sections import Settings

_log = logging.getLogger("ajhost.supervisor")


def run(settings: Settings, load: Callable[[], Settings], warning: str | None = None) -> bool:
    """Runs the host until it has stopped. Returns False when it could not start, and logs why.

    `load` reads the configuration again for a reload. `warning` is logged first.
    """
    faulthandler.enable()  # the watchdog's SIGABRT leaves the stacks
    directory = settings.runtime.directory
    try:
        notifier = Notifier()  # first: it takes systemd's variables out of the environment
        configure_log(settings.log)
        processes.set_title("ajhost: supervisor")
        if warning is not None:
            _log.warning("%s", warning)
        for problem in notifier.unit_problems():
            _log.warning("%s", problem)
        processes.become_subreaper()
        requirements.raise_file_limit()
        if lacking := requirements.lacking_proc() or requirements.lacking_files(settings.workers.count):
            raise StartupFailed(lacking)
        with _alone(directory) as files:
            if not requirements.on_tmpfs(directory):
                _log.warning("%s is not on a tmpfs: every request costs disk writes", directory)
            asyncio.run(_serve(settings, load, notifier, files))
    except StartupFailed as error:
        _log.error("cannot start: %s", error)
        return False
    except OSError as error:
        _log.error("cannot start: %s", os_error_texts.described(error))
        return False
    return True


async def _serve(settings: Settings, load: Callable[[], Settings], notifier: Notifier, files: RuntimeFiles) -> None:
    tcp.require()
    supervisor = Supervisor(settings, load, notifier)
    asyncio.get_running_loop().set_exception_handler(supervisor.guard.of_loop)
    await files.listen(settings.file, supervisor.actions, supervisor.view)
    with contextlib.ExitStack() as at_end:
        at_end.callback(files.close_sockets)
        at_end.callback(asyncio.create_task(files.keep(supervisor)).cancel)
        if settings.http is not None:
            # here, so that a host that does not serve HTTP starts without its libraries
            from ajhost.roles.supervisor.http_endpoints import listen

            web = await listen(settings.http, settings.runtime.directory, supervisor)
            at_end.callback(web.close)
        await supervisor.run()


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[RuntimeFiles]:
    """Holds the lock of the runtime directory.

    :raises StartupFailed: when another supervisor holds it (the text has its pid), or the directory is not fit for use.
    """
    try:
        descriptor = runtime_directory.prepare(directory)
    except UnfitDirectory as error:
        made = os.environ.get("RUNTIME_DIRECTORY", "")  # systemd.exec(5)
        hint = f"; its unit has made {made} for it" if made and Path(made) != directory else ""
        raise StartupFailed(f"runtime.directory: {error}{hint}") from error
    files = RuntimeFiles(directory, descriptor)
    try:
        if not runtime_directory.lock(descriptor):
            pid = 0
            with contextlib.suppress(OSError):
                pid = runtime_directory.holder(directory)
            raise StartupFailed(f"{directory}: another ajhost runs here already, pid {pid or 'unknown'}")
        files.make()
        yield files
    finally:
        files.close()
