"""CONNECT, which nats-py makes, shows a server the host's credentials, whether it asks for any or not."""

from __future__ import annotations

import base64
from typing import Any

import nkeys
import orjson
import pytest

from ajhost.adapters.nats.connect_and_log_in import connect_line
from ajhost.adapters.nats.credentials import LogInData
from ajhost.protocol.credential_files import UserCredentials, public_key
from ajhost.protocol.server_info import ServerInfo
from tests.unit.protocol.test_credential_files import JWT, SEED

SIG = base64.b64encode(nkeys.from_seed(bytearray(SEED, "ascii")).sign(b"nonce")).decode()
CREDS = UserCredentials(JWT, SEED)
SECRETS = ("user", "pass", "auth_token", "jwt", "nkey", "sig")


def shown(data: LogInData, *, nonce: str = "nonce") -> dict[str, Any]:
    line = connect_line(ServerInfo(nonce=nonce, headers=True), data, "worker 0")
    assert line.startswith(b"CONNECT {")
    assert line.endswith(b"}\r\n")
    options = orjson.loads(line[8:])
    assert (options["name"], options["headers"], options["no_responders"]) == ("worker 0", True, True)
    assert not options["verbose"]
    return {key: value for key, value in options.items() if key in SECRETS}


@pytest.mark.parametrize(
    ("data", "secrets"),
    [
        (LogInData(), {}),
        (LogInData(user="u"), {}),
        (LogInData(user="u", password=""), {"user": "u", "pass": ""}),
        (LogInData(user="u", password="p", token="t"), {"user": "u", "pass": "p"}),
        (LogInData(token="t"), {"auth_token": "t"}),
        (LogInData(seed=SEED), {"nkey": public_key(SEED), "sig": SIG}),
        (LogInData(seed=SEED, token="t"), {"nkey": public_key(SEED), "sig": SIG, "auth_token": "t"}),
        (LogInData(creds=CREDS), {"jwt": JWT, "sig": SIG}),
        (LogInData(creds=CREDS, token="t"), {"jwt": JWT, "sig": SIG, "auth_token": "t"}),
    ],
)
def test_what_a_server_is_shown_of_the_credentials(data: LogInData, secrets: dict[str, str]) -> None:
    assert shown(data) == secrets


def test_without_a_nonce_nothing_is_signed() -> None:
    assert shown(LogInData("u", "p", creds=CREDS), nonce="") == {"user": "u", "pass": "p"}
