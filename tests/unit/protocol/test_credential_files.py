"""Credentials work in every shape in which tools and editors leave them, or are told by name without a secret."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable

import nkeys
import orjson
import pytest
from nats.aio.client import RawCredentials

from ajhost.protocol.credential_files import (
    CredentialsError,
    UserCredentials,
    public_key,
    read_seed,
    read_user_credentials,
    read_word,
)


def new_seed(kind: int = nkeys.PREFIX_BYTE_USER, raw: bytes | None = None) -> str:
    seed: bytes = nkeys.encode_seed(os.urandom(32) if raw is None else raw, kind)
    return seed.decode()


def jwt_of(seed: str, **claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")

    return f"{part({'alg': 'ed25519-nkey'})}.{part({'sub': public_key(seed), **claims})}.{'s' * 86}"


def creds(seed: str, jwt: str) -> str:
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n"
        "*************************************************************\n"
    )


# always the same, for it is in names of tests, which every process of a run must find alike
SEED = new_seed(raw=bytes(range(32)))
JWT = jwt_of(SEED, exp=1234)
SHAPES: dict[str, Callable[[str], str]] = {
    "as nsc writes it": lambda text: text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "a byte order mark": lambda text: "\ufeff" + text,
    "blank lines": lambda text: text.replace("\n", "\n\n"),
    "indented as in YAML": lambda text: "".join(f"    {line}\n" for line in text.splitlines()),
    "spaces behind": lambda text: "".join(f"{line}  \n" for line in text.splitlines()),
    "no newline at the end": lambda text: text.partition("------END USER")[0].rstrip(),
    "the seed first": lambda text: text[text.index("-----BEGIN USER") :] + text,
}


def test_a_public_key_is_what_nkeys_says() -> None:
    for _ in range(50):
        seed = new_seed()
        assert public_key(seed) == nkeys.from_seed(bytearray(seed, "ascii")).public_key.decode()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_credentials_file_works_in_every_shape(shape: str) -> None:
    found = read_user_credentials(SHAPES[shape](creds(SEED, JWT)).encode())
    assert (found.jwt, found.seed, found.expires) == (JWT, SEED, 1234)


@pytest.mark.parametrize(
    ("begins", "expires", "told"),
    [
        (None, None, ""),
        (1000, 2000, ""),
        (None, 1400, "the JWT expired at 1970-01-01 00:23:20 UTC"),
        (1600, None, "the JWT is not valid before 1970-01-01 00:26:40 UTC, by this machine's clock"),
    ],
)
def test_a_jwt_that_no_server_takes_now_is_told(begins: int | None, expires: int | None, told: str) -> None:
    assert UserCredentials("", "", begins, expires).why_not_valid(1500.0) == told


@pytest.mark.parametrize("value", [0, -1, 1 << 62, "1600", 1.5, None, True])
def test_times_of_a_jwt_that_are_none_are_passed_over(value: object) -> None:
    found = read_user_credentials(creds(SEED, jwt_of(SEED, nbf=value, exp=value)).encode())
    assert found.why_not_valid(1500.0) == ""


def test_the_client_library_reads_what_is_handed_to_it() -> None:
    from nats.aio.client import Client

    text = RawCredentials(read_user_credentials(creds(SEED, JWT).encode()).text())
    client = Client()
    assert bytes(client._read_creds_user_jwt(text)).decode() == JWT
    assert bytes(client._read_creds_user_nkey(text)).decode() == SEED


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        (" \r\n\n", "is empty"),
        ("nothing of the kind", "has no NATS USER JWT and no USER NKEY SEED"),
        (creds(SEED, ""), "has an empty NATS USER JWT"),
        (creds(SEED, JWT[:40]), "has a NATS USER JWT that is none"),
        (creds(SEED, JWT[:-40]), "has a NATS USER JWT that is none"),
        (creds(SEED, "a.b.c"), "has a NATS USER JWT that is none"),
        (creds("", JWT), "holds a seed of 0 characters"),
        (creds(SEED[:30], JWT), "holds a seed of 30 characters"),
        (creds(SEED[:-1] + ("A" if SEED[-1] != "A" else "B"), JWT), "check sum is wrong"),
        (creds(new_seed(raw=bytes(range(32, 64))), JWT), "has a seed that is not the JWT's"),
        (creds(new_seed(nkeys.PREFIX_BYTE_ACCOUNT, bytes(range(32))), JWT), "is no user's"),
        (creds(SEED, JWT).partition("-----BEGIN USER")[0], "has no USER NKEY SEED: is it only half there?"),
        (creds(SEED, JWT)[:60], "has a NATS USER JWT that is none"),
        (creds(SEED, JWT)[creds(SEED, JWT).index("***") :], "has no NATS USER JWT"),
    ],
)
def test_what_is_wrong_with_credentials_is_told_and_no_secret(text: str, told: str) -> None:
    with pytest.raises(CredentialsError) as raised:
        read_user_credentials(text.encode())
    assert told in str(raised.value)
    assert SEED[:20] not in str(raised.value)
    assert JWT[:20] not in str(raised.value)


@pytest.mark.parametrize("text", [SEED, f"{SEED}\r\n", f"\ufeff\n  {SEED}  \n\n", f"# mine\n{SEED}\nUABC\n"])
def test_a_seed_is_found_in_its_file(text: str) -> None:
    assert read_seed(text.encode()) == SEED
    assert read_seed(creds(SEED, JWT).encode()) == SEED


@pytest.mark.parametrize("text", ["", "U" + SEED[1:], SEED[:-2], "S", SEED.lower()])
def test_what_is_no_seed_is_told(text: str) -> None:
    with pytest.raises(CredentialsError):
        read_seed(text.encode())


@pytest.mark.parametrize(
    ("text", "word"),
    [("pw", "pw"), ("pw\n", "pw"), ("pw\r\n", "pw"), ("\ufeffpw\n\n", "pw"), ("\n p w \n", " p w ")],
)
def test_a_password_is_the_one_line_of_its_file(text: str, word: str) -> None:
    assert read_word(text.encode()) == word


@pytest.mark.parametrize("content", [b"", b"\r\n", b"a\nb\n", b"\xff\xfe"])
def test_what_is_no_password_is_told(content: bytes) -> None:
    with pytest.raises(CredentialsError):
        read_word(content)
