"""What a host needs of the machine."""

from __future__ import annotations

from pathlib import Path

from ajhost.adapters.linux import requirements


def test_whether_a_directory_lies_in_memory_is_known() -> None:
    assert requirements.on_tmpfs(Path("/dev/shm"))
    assert not requirements.on_tmpfs(Path("/proc"))
