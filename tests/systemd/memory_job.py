"""The OOM killer in a machine with a kernel of its own: run there, as root, by Debian's Python; prints what it saw.

memory_job.py PACKAGE NATS_SERVER HANDLERS_DIRECTORY
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE, NATS_SERVER, HANDLERS = sys.argv[1:]
LIMIT = 160 << 20
SETTINGS = """
[python]
path = ["/srv/app"]
[workers]
count = 2
[handlers.allocate]
target = "handlers:allocate"
[handlers.echo]
target = "handlers:echo"
"""


def do(*command: str) -> str:
    """What a command prints that must succeed. Raises SystemExit with what it said else."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def call(*arguments: str) -> str:
    """What `ajhost call` says, whether it is a result or an error."""
    done = subprocess.run(("ajhost", "call", *arguments), capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def shown() -> dict[str, str]:
    """The unit's state."""
    names = ("MainPID", "NRestarts", "ActiveState", "OOMPolicy", "ControlGroup")
    lines = do("systemctl", "show", *(f"--property={name}" for name in names), "ajhost").splitlines()
    return dict(line.split("=", 1) for line in lines)


do("ip", "link", "set", "lo", "up")
do("dpkg", "--no-triggers", "--force-unsafe-io", "--install", PACKAGE)
Path("/srv/app").mkdir(parents=True)
shutil.copy(f"{HANDLERS}/handlers.py", "/srv/app")
Path("/etc/ajhost/ajhost.toml").write_text(SETTINGS)
drop_in = Path("/run/systemd/system/ajhost.service.d/memory.conf")
drop_in.parent.mkdir(parents=True)
drop_in.write_text(f"[Service]\nMemoryMax={LIMIT}\nMemorySwapMax=0\n")
server = subprocess.Popen((NATS_SERVER, "--addr", "127.0.0.1", "--log", "/run/nats-server.log"))
try:
    do("systemctl", "daemon-reload")
    do("systemctl", "start", "ajhost")
    before = shown()
    killed = call("allocate", json.dumps({"bytes": 2 * LIMIT, "sleep_ms": 60_000}), "--timeout", "60")
    after = call("echo", "on")
    events = Path(f"/sys/fs/cgroup{before['ControlGroup']}/memory.events").read_text().split()
    print(
        json.dumps(
            {
                "before": before,
                "killed": killed,
                "after": after,
                "now": shown(),
                "kills": int(events[events.index("oom_kill") + 1]),
                "journal": do("journalctl", "-u", "ajhost", "-o", "cat").splitlines(),
            }
        )
    )
finally:
    server.kill()
