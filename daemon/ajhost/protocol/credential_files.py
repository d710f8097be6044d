"""Reads the content of credentials files as nsc, nk and editors write them: a user's JWT and seed, a password, a token.
Decides what is wrong with one, and the words for a JWT that has expired or is not valid yet.

A byte order mark, CRLF, blank lines, indentation and a missing newline at the end make no difference.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from nacl.signing import SigningKey

_MARK = re.compile(r"-{3,}\s*(BEGIN|END) ([A-Z ]+?)\s*-{3,}\Z")
_JWT, _SEED = "NATS USER JWT", "USER NKEY SEED"
_PREFIX_SEED, _PREFIX_USER = 18 << 3, 20 << 3
_SEED_BYTES = 36
_LAST_SECOND = 253_402_300_800
"""The year 10000, in Unix seconds: `datetime` cannot show a later time."""
_KEY_TEXT = re.compile(r"S[A-Z2-7]{57}\Z")
_JWT_PARTS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}\Z")
"""Header, claims, and a signature of ed25519, whose 64 bytes are 86 characters: a JWT that was cut off has fewer."""


class CredentialsError(ValueError):
    """A file has no credential. The text continues a sentence that begins with the file's name, and shows no secret."""


@dataclass(frozen=True, slots=True)
class UserCredentials:
    """A user's JWT and the seed of its key. Of the JWT, as Unix seconds: `begins` and `expires`, None for never."""

    jwt: str = field(repr=False)
    seed: str = field(repr=False)
    begins: int | None = None
    expires: int | None = None

    def why_not_valid(self, now: float) -> str:
        """Says why no server accepts the JWT at `now`, in Unix seconds; empty when its times are not the reason."""
        if self.expires is not None and self.expires <= now:
            return f"the JWT expired at {_moment(self.expires)}"
        if self.begins is not None and self.begins > now:
            return f"the JWT is not valid before {_moment(self.begins)}, by this machine's clock"
        return ""

    def text(self) -> str:
        """Returns the text of the file that nsc would have written."""
        return (
            f"-----BEGIN {_JWT}-----\n{self.jwt}\n------END {_JWT}------\n\n"
            f"-----BEGIN {_SEED}-----\n{self.seed}\n------END {_SEED}------\n"
        )


def read_user_credentials(content: bytes) -> UserCredentials:
    """Returns the JWT and the seed of a credentials file.

    :raises CredentialsError: when one of them is missing or malformed, or they do not belong together.
    """
    sections = _sections(_decoded(content))
    if not sections:
        raise CredentialsError(f"has no {_JWT} and no {_SEED}")
    jwt, seed = sections.get(_JWT), sections.get(_SEED)
    if jwt is None:
        raise CredentialsError(f"has no {_JWT}")
    claims = _claims("".join(jwt))
    if seed is None:
        raise CredentialsError(f"has no {_SEED}: is it only half there?")
    text = "".join(seed)
    public = public_key(text)
    if claims.get("sub") != public:
        raise CredentialsError(f"has a seed that is not the JWT's: they belong to {public} and {_who(claims)}")
    return UserCredentials("".join(jwt), text, _seconds(claims, "nbf"), _seconds(claims, "exp"))


def read_seed(content: bytes) -> str:
    """Returns the seed of a user's key in a file of its own, bare or between the marks of a credentials file.

    :raises CredentialsError: when there is none.
    """
    text = _decoded(content)
    found = _sections(text).get(_SEED)
    lines = ["".join(found)] if found is not None else [line.strip() for line in text.splitlines()]
    seeds = [line for line in lines if line.startswith("S")]
    if not seeds:
        raise CredentialsError("holds no seed of a user")
    public_key(seeds[0])
    return seeds[0]


def read_word(content: bytes) -> str:
    """Returns the one line of a file with a password or a token. Spaces belong to it.

    :raises CredentialsError: when there is none, or more than one.
    """
    words = [line for line in re.split(r"\r?\n", _decoded(content)) if line]
    if len(words) != 1:
        raise CredentialsError("is empty" if not words else f"has {len(words)} lines: a file of one line is needed")
    return words[0]


def public_key(seed: str) -> str:
    """Returns the public key of a user's seed, as U...

    :raises CredentialsError: when the text is no user's seed.
    """
    if not _KEY_TEXT.match(seed):
        raise CredentialsError(f"holds a seed of {len(seed)} characters that is none: a user's has 58, SU...")
    raw = base64.b32decode(seed + "=" * (-len(seed) % 8))[:_SEED_BYTES]
    if binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        raise CredentialsError("holds a seed whose check sum is wrong: is it whole?")
    if raw[0] & 0xF8 != _PREFIX_SEED or (raw[0] & 7) << 5 | raw[1] >> 3 != _PREFIX_USER:
        raise CredentialsError(f"holds a seed {seed[:2]}..., which is no user's (SU...)")
    public = bytes((_PREFIX_USER,)) + bytes(SigningKey(raw[2:-2]).verify_key)
    check = binascii.crc_hqx(public, 0).to_bytes(2, "little")
    return base64.b32encode(public + check).decode().rstrip("=")


def _decoded(content: bytes) -> str:
    if not content.strip():
        raise CredentialsError("is empty")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CredentialsError("is not UTF-8") from None


def _sections(text: str) -> dict[str, list[str]]:
    """Returns the lines between the marks, by the marks' names; the last END may be missing."""
    found: dict[str, list[str]] = {}
    inside: list[str] | None = None
    for line in map(str.strip, text.splitlines()):
        mark = _MARK.match(line)
        if mark is None:
            if inside is not None and line:
                inside.append(line)
        elif mark[1] == "BEGIN":
            inside = found.setdefault(mark[2], [])
            inside.clear()
        else:
            inside = None
    return found


def _claims(jwt: str) -> dict[str, Any]:
    if not jwt:
        raise CredentialsError(f"has an empty {_JWT}")
    broken = CredentialsError(f"has a {_JWT} that is none: is it whole?")
    if not _JWT_PARTS.match(jwt):
        raise broken
    body = jwt.split(".")[1]
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except ValueError:
        raise broken from None
    if not isinstance(claims, dict) or not isinstance(claims.get("sub"), str):
        raise broken
    return claims


def _seconds(claims: dict[str, Any], name: str) -> int | None:
    value = claims.get(name)
    return value if type(value) is int and 0 < value < _LAST_SECOND else None


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _who(claims: dict[str, Any]) -> str:
    return str(claims["sub"])[:60]
