"""Secret files that another user reads, as a pod does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.settings.test_load import HANDLER, write

DAEMON = str(Path(__file__).parents[2] / "daemon")


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A directory that every user can reach."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


AS_A_POD = """
import encodings.utf_8_sig, os, sys  # the interpreter may lie where the other user cannot read
from pathlib import Path
from ajhost.settings.load import load
os.setgroups([4242])
os.setgid(4242)
os.setuid(4242)
try:
    load(Path(sys.argv[1]), {})
except Exception as error:
    print(error)
else:
    print("good")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")
@pytest.mark.parametrize(
    ("mode", "group", "good"),
    [
        (0o440, 4242, True),
        (0o640, 4242, True),
        (0o440, 4243, False),
        (0o444, 4242, False),
        (0o660, 4242, False),
    ],
)
def test_a_secret_that_root_has_made_for_our_group_is_taken(
    everybodys: Path, mode: int, group: int, good: bool
) -> None:
    """As Kubernetes mounts secrets: 0440, root, the pod's fsGroup."""
    file = write(everybodys / "ajhost.toml", HANDLER + '[nats]\ntoken_file = "token.txt"\n', 0o644)
    secret = write(everybodys / "token.txt", "t0ken\n", mode)
    os.chown(secret, 0, group)
    environment = {**os.environ, "PYTHONPATH": DAEMON}
    command = [sys.executable, "-c", AS_A_POD, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=environment)
    assert (done.stdout == "good\n") is good, done
    assert good or "token.txt" in done.stdout
