"""Real routers: programs of asyncjobs v0.3.0 and the `nats` command, built once. Skipped where they cannot be built."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import golang
from tests.support.nats import NatsServer


def built(module: str, package: str = ".", *, sources: Mapping[str, str] | None = None) -> Path:
    """`golang.build`, or a skip that says why not."""
    try:
        return golang.build(module, package, sources=sources)
    except golang.GoMissing as missing:
        pytest.skip(f"no real router: {missing}")


@pytest.fixture(scope="session")
def ajc() -> Path:
    """The command line of asyncjobs, itself a router."""
    return built("ajc", "github.com/choria-io/asyncjobs/ajc")


@pytest.fixture(scope="session")
def library_router() -> Path:
    """Our own program around the library."""
    return built("router")


@pytest.fixture(scope="session")
def nats_cli() -> Path:
    """The `nats` command."""
    return built("natscli", "github.com/nats-io/natscli/nats")


@pytest.fixture
def context(jetstream: NatsServer, tmp_path: Path) -> dict[str, str]:
    """An environment in which the NATS context `AJC` leads to the server `jetstream`."""
    file = tmp_path / "config" / "nats" / "context" / "AJC.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"url": jetstream.url}))
    return {
        **os.environ,
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "CONTEXT": "AJC",
        "NATS_CONTEXT": "AJC",
    }
