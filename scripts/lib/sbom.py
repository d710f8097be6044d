"""The package's bill of materials: CycloneDX 1.5 in JSON, the same for the same libraries (https://cyclonedx.org).

    sbom.py SITE-PACKAGES LOCK VERSION SECONDS

Standard library only: it is run by Debian's Python while the package is built.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
import uuid
from importlib.metadata import Distribution, distributions
from typing import Any


def name_of(text: str) -> str:
    """A name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", text).lower()


def hashes_of(lock: str) -> dict[str, list[str]]:
    """Library to the SHA-256 sums of the files that it may come in."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lock.splitlines():
        if pinned := re.match(r"([A-Za-z0-9._-]+)==", line):
            name = name_of(pinned[1])
        if digest := re.search(r"--hash=sha256:([0-9a-f]{64})", line):
            found.setdefault(name, []).append(digest[1])
    return found


def license_of(library: Distribution) -> list[dict[str, Any]]:
    """What it says of its licence, in the words that it uses."""
    said = library.metadata.json
    if expression := said.get("license_expression"):
        return [{"expression": expression}]
    classifiers = [c for c in said.get("classifier", []) if c.startswith("License :: ")]
    names = [c.rpartition(" :: ")[2] for c in classifiers] or [str(said.get("license", "")).split("\n")[0]]
    return [{"license": {"name": name}} for name in names if name]


def component(library: Distribution, hashes: dict[str, list[str]]) -> dict[str, Any]:
    """One library."""
    name, version = name_of(library.metadata["Name"]), library.version
    purl = f"pkg:pypi/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": license_of(library),
        # one of these was taken: the lock file names a file for each platform
        "properties": [{"name": "ajhost:sha256", "value": digest} for digest in hashes.get(name, [])],
    }


def bill(site: str, lock: str, version: str, seconds: int) -> dict[str, Any]:
    """The whole document."""
    hashes = hashes_of(lock)
    libraries = sorted(distributions(path=[site]), key=lambda found: name_of(found.metadata["Name"]))
    components = [component(library, hashes) for library in libraries]
    content = json.dumps([version, components], sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, content).urn,
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": "ajhost",
                "name": "ajhost",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": components,
        "dependencies": [{"ref": "ajhost", "dependsOn": [c["bom-ref"] for c in components]}],
    }


if __name__ == "__main__":
    _, place, lock_file, release, moment = sys.argv
    with open(lock_file, encoding="utf-8") as opened:
        json.dump(bill(place, opened.read(), release, int(moment)), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
