"""The lock file: every library that the project needs, at a version that it allows, by hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
LOCK = (ROOT / "packaging" / "libraries.lock").read_text()
PINNED = {
    canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+) \\$", LOCK, re.MULTILINE)
}


def test_every_dependency_is_pinned_at_a_version_that_is_allowed() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        needed = [Requirement(text) for text in tomllib.load(file)["project"]["dependencies"]]
    wrong = [
        str(requirement)
        for requirement in needed
        if not requirement.specifier.contains(PINNED.get(canonicalize_name(requirement.name), "0"))
    ]
    assert wrong == [], "scripts/lock pins them anew"


def test_one_library_alone_is_kept_to_a_minor_so_that_applications_choose_their_own() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        needed = [Requirement(text) for text in tomllib.load(file)["project"]["dependencies"]]
    pinned = [n.name for n in needed if any(s.operator not in (">=", "!=") for s in n.specifier)]
    assert pinned == ["nats-py"], "the transport replaces part of it"


def test_every_library_has_hashes_and_nothing_says_where_it_comes_from() -> None:
    for block in re.split(r"^(?=\S)", LOCK, flags=re.MULTILINE):
        if "==" in block:
            assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", block), block
    for lock in (ROOT / "packaging").glob("*.lock"):
        assert not re.search(r"://|^-|find-links", lock.read_text(), re.MULTILINE), lock
