"""Whom an interpreter trusts: the same authorities are the same wherever they lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from ajhost.adapters.nats.tls import own_trust
from tests.support.certificates import self_signed


def test_only_other_authorities_make_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = self_signed(tmp_path)
    other, _ = self_signed(tmp_path, "other")
    (tmp_path / "hashed").mkdir()
    (tmp_path / "hashed" / "0123abcd.0").write_text(f"a comment\n{one.read_text()}")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("SSL_CERT_FILE", str(one))
    in_a_file = own_trust()
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    elsewhere = own_trust()
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "hashed"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere"))
    in_a_directory = own_trust()
    assert in_a_file.difference(in_a_directory) == ""
    assert f"others than the host's: {elsewhere.where}" in in_a_file.difference(elsewhere)
    assert f"{other} (1)" in elsewhere.where
