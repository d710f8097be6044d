"""`[nats.tls]`: files that the connection could not use later are told when they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from ajhost.settings.errors import Problem, SettingsError
from ajhost.settings.load import load
from ajhost.settings.sections import TlsSettings
from tests.unit.settings.test_load import HANDLER, write

# made for these tests, good for nothing else
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgPKFWb0AqV8Kbd+V+
GW7PqAo7Sv/Q9opHE94lIfXjKfOhRANCAARlma0FmFoiMikUsY4WB9kpE6igt0uE
f0sYcZYtLzWhoxsovI+Gq2ohC+2AvxxnOJBz6bZKhZvp1Zh1RqNNhOhh
-----END PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBbzCCARWgAwIBAgIUJG5rSh8xENTjit/RLHAo/LFAvrQwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYTAgFw0yNjExMjQxMjU4MjVaGA8yMTI2MTAzMTEyNTgyNVow
DDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGWZrQWYWiIy
KRSxjhYH2SkTqKC3S4R/Sxhxli0vNaGjGyi8j4araiEL7YC/HGc4kHPptkqFm+nV
mHVGo02E6GGjUzBRMB0GA1UdDgQWBBS+P7k/jb3ABkWF6YMjYMvzxxP4RDAfBgNV
HSMEGDAWgBS+P7k/jb3ABkWF6YMjYMvzxxP4RDAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0gAMEUCIQCTe2AfVSrMvmO0/GdHGN+Rk2/jWdPPgkJuiAavhd/W
3AIgKJ1CGkjm4q22SyEi2op7ksON7pMwugLWyBlTDDzUbH8=
-----END CERTIFICATE-----
"""
OTHER_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgPhilKtzFxuHhwndE
RKkN5EHz+Pjyd5aa5tDfIYWrUQ2hRANCAATlRqW3cRap0RrU6Twqd8d4qNq/jweL
CdFcvuhr2yK7sP82kZrJVf7+MKcPExSniAtTtVgsWuim9TI5JBxv8Yln
-----END PRIVATE KEY-----
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Holds a certificate, its key, and the key of another."""
    write(tmp_path / "cert.pem", CERTIFICATE, 0o644)
    write(tmp_path / "key.pem", KEY)
    write(tmp_path / "other.pem", OTHER_KEY)
    write(tmp_path / "both.pem", CERTIFICATE + KEY)
    return tmp_path


def tls_of(directory: Path, lines: str) -> TlsSettings | None:
    return load(write(directory / "ajhost.toml", f"{HANDLER}[nats.tls]\n{lines}"), {}).nats.tls


def problem_of(directory: Path, lines: str) -> Problem:
    with pytest.raises(SettingsError) as caught:
        tls_of(directory, lines)
    (problem,) = caught.value.problems
    return problem


def test_authority_certificate_and_key_are_found_beside_the_file(directory: Path) -> None:
    found = tls_of(directory, 'ca = "cert.pem"\ncert = "cert.pem"\nkey = "key.pem"')
    assert found == TlsSettings(directory / "cert.pem", directory / "cert.pem", directory / "key.pem")


def test_the_key_may_lie_in_the_file_of_the_certificate_which_is_secret_then(directory: Path) -> None:
    assert tls_of(directory, 'cert = "both.pem"') == TlsSettings(cert=directory / "both.pem")
    (directory / "both.pem").chmod(0o644)
    assert problem_of(directory, 'cert = "both.pem"').key == "nats.tls.cert"


def test_a_key_that_others_can_read_is_refused(directory: Path) -> None:
    (directory / "key.pem").chmod(0o640)
    problem = problem_of(directory, 'cert = "cert.pem"\nkey = "key.pem"')
    assert problem.key == "nats.tls.key"
    assert "0640" in problem.found


@pytest.mark.parametrize(
    ("lines", "key", "found"),
    [
        ('ca = "key.pem"', "nats.tls.ca", "no certificate"),
        ('cert = "cert.pem"\nkey = "cert.pem"', "nats.tls.key", "0644"),
        ('cert = "cert.pem"\nkey = "other.pem"', "nats.tls.cert", "mismatch"),
        ('cert = "cert.pem"', "nats.tls.cert", "cert.pem"),
        ('ca = "broken.pem"', "nats.tls.ca", "broken.pem"),
        ('cert = "cert.pem"\nkey = "locked.pem"', "nats.tls.key", "passphrase"),
    ],
)
def test_files_that_could_not_be_used_are_told(directory: Path, lines: str, key: str, found: str) -> None:
    write(directory / "broken.pem", CERTIFICATE.replace("M", "N"))
    write(directory / "locked.pem", KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"))
    problem = problem_of(directory, lines)
    assert problem.key == key
    assert found in problem.found
