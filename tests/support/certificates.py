"""Certificates for servers of a test, each its own authority."""

from __future__ import annotations

import subprocess
from pathlib import Path


def self_signed(folder: Path, name: str = "cert") -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and localhost, which is its own authority, and its key."""
    file, key = folder / f"{name}.pem", folder / ("key.pem" if name == "cert" else f"{name}-key.pem")
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*new, *names, "-keyout", key, "-out", file, "-days", "2"], check=True, capture_output=True)
    key.chmod(0o600)
    return file, key
