"""What handler code may want to do, tried once each: name to error (null if it worked), in the state directory."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from multiprocessing import get_context, shared_memory
from pathlib import Path

import orjson

STATE = Path(os.environ["STATE_DIRECTORY"])
ORJSON = Path(orjson.__file__).parent


def machine_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def cffi_callback() -> None:
    from cffi import FFI  # type: ignore[import-untyped]

    ffi = FFI()
    ffi.cdef("int x;")
    assert ffi.callback("int(int)", lambda x: x + 1)(1) == 2


def ctypes_callback() -> None:
    assert ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 3)() == 3


def script(directory: str) -> None:
    path = Path(directory) / "script"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    subprocess.run([path], check=True)


def shared_object(directory: str) -> None:
    source = next(ORJSON.glob("*.so"))
    ctypes.CDLL(str(shutil.copy(source, Path(directory) / "copy.so")))


def shared_objects() -> None:
    block = shared_memory.SharedMemory(create=True, size=16)
    block.close()
    block.unlink()
    get_context("fork").Lock()


def program() -> None:
    subprocess.run(["/bin/sh", "-c", "exit 0"], check=True, start_new_session=True)


def user_namespace() -> None:
    subprocess.run(["unshare", "--user", "true"], check=True, capture_output=True)


def write(path: str) -> None:
    Path(path).write_text("x")


def multicast() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sock.sendto(b"x", ("224.0.0.251", 5353))


def io_uring() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(425, 0, None)  # io_uring_setup(2), with arguments that it refuses if it is asked
    if (number := ctypes.get_errno()) == errno.EPERM:
        raise PermissionError(number, os.strerror(number))


def thread() -> None:
    started = threading.Thread(target=int)
    started.start()
    started.join()


PROBES: dict[str, Callable[[], object]] = {
    "machine code": machine_code,
    "cffi callback": cffi_callback,
    "ctypes callback": ctypes_callback,
    "script in state": lambda: script(str(STATE)),
    "script in tmp": lambda: script("/tmp"),
    "shared object in tmp": lambda: shared_object("/tmp"),
    "program": program,
    "thread": thread,
    "shared memory and locks": shared_objects,
    "user namespace": user_namespace,
    "write state": lambda: write(str(STATE / "x")),
    "write tmp": lambda: write("/tmp/x"),
    "write srv": lambda: write("/srv/exports/x"),
    "write run": lambda: write("/run/lock/x"),
    "write etc": lambda: write("/etc/x"),
    "read home": lambda: os.listdir("/home"),
    "meminfo": lambda: Path("/proc/meminfo").read_text(),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(),
    "raw packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close(),
    "nicer": lambda: os.nice(1),
    "scheduler": lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
    "affinity": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "multicast": multicast,
    "io_uring": io_uring,
    "chown": lambda: os.chown(STATE, os.getuid(), os.getgid()),
    "connect": lambda: socket.create_server(("127.0.0.1", 0)).close(),
    "credentials": lambda: Path(os.environ["CREDENTIALS_DIRECTORY"], "credentials_probe").read_text(),
}


def outcome(probe: Callable[[], object]) -> str | None:
    """How it failed."""
    try:
        probe()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


(STATE / "probe.json").write_text(json.dumps({name: outcome(probe) for name, probe in PROBES.items()}))
