"""What is done with labs that are up: ended, rebooted, listed and looked at."""

from __future__ import annotations

import os
import signal
import sys
import time

from scripts.lib.systemd_lab import state as labs
from scripts.lib.systemd_lab.linux import LabError, start_time
from scripts.lib.systemd_lab.state import Lab, State, read_text

_POLL = 0.02
# signals that systemd takes as PID 1 (systemd(1), SIGNALS)
_POWER_OFF, _REBOOT = signal.SIGRTMIN + 4, signal.SIGRTMIN + 5


def reboot(lab: Lab, timeout: float, *, quiet: bool) -> int:
    """An orderly reboot inside: /run is new, the rest of the file system stays."""
    state, began = lab.wait_running(), time.monotonic()
    os.kill(state.leader, _REBOOT)
    while lab.wait_running(timeout).boots == state.boots:
        if time.monotonic() - began > timeout:
            raise LabError(f"reboot {lab.name}: not back after {timeout} s")
        time.sleep(_POLL)
    if not quiet:
        print(f"{lab.name}: rebooted in {time.monotonic() - began:.2f} s")
    return 0


def down(found: list[Lab], timeout: float, *, graceful: bool, quiet: bool) -> int:
    """Ends labs, `graceful` by a power-off first; 1 when something of one is left."""
    status = 0
    for lab in found:
        lab.lock()
        state, began = lab.running(), time.monotonic()
        if state is not None and graceful:
            _power_off(state, timeout)
        try:
            lab.destroy()
        except LabError as error:
            print(f"systemd-lab: down {lab.name}: {error}", file=sys.stderr)
            status = 1
        else:
            lab.unlock()
            if not quiet:
                print(f"{lab.name}: down in {time.monotonic() - began:.2f} s")
    return status


def _power_off(state: State, timeout: float) -> None:
    os.kill(state.leader, _POWER_OFF)
    end = time.monotonic() + timeout
    while start_time(state.leader) == state.leader_start and time.monotonic() < end:
        time.sleep(_POLL)


def show_all(base: str) -> int:
    """A line for each lab."""
    for name in labs.names(base):
        state = Lab(name, base).running()
        if state is None:
            print(name, "dead (run down)")
        else:
            print(
                f"{name} up leader={state.leader} boot={state.boot_s}s boots={state.boots} "
                f"cgroup={state.cgroup} network={state.network}"
            )
    return 0


def show_console(lab: Lab) -> int:
    """What the lab printed on its console."""
    sys.stdout.write(read_text(lab.path("console.log")))
    return 0


def show_leader(lab: Lab) -> int:
    """The process id, outside, of the lab's PID 1."""
    print(lab.wait_running().leader)
    return 0


def show_root(lab: Lab) -> int:
    """The lab's root, as seen from outside."""
    print(f"/proc/{lab.wait_running().leader}/root")
    return 0
