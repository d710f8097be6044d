"""Masks secrets in a text as `***`, and recognises texts that may be secrets: passwords, tokens, seeds and keys."""

from __future__ import annotations

import re

MASK = "***"
_NKEY_SEED = r"\bS[ACNOPUX][A-Z2-7]{56}\b"
"""S, its kind, base32 (github.com/nats-io/nkeys)."""
# user, password or token in a URL; seeds
_SECRET = re.compile(rf"(?<=://)[^\s/\"']+(?=@)|{_NKEY_SEED}")
_KEY_MATERIAL = re.compile(
    rf"{_NKEY_SEED}|\beyJ[\w-]{{8,}}|-----BEGIN|\b[0-9a-fA-F]{{64,}}\b|\b[A-Za-z0-9+/]{{64,}}={{0,2}}"
)
"""The seed of an nkey, a JWT, PEM, and words as long as a key in hexadecimal or base64."""


def without_secrets(text: str) -> str:
    """Returns `text` with `***` in the place of seeds, and of user, password or token in an address."""
    return _SECRET.sub(MASK, text)


def without_userinfo(url: str) -> str:
    """Returns an address with `***` in the place of user name and password."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    _, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{f'{MASK}@' if at else ''}{place}"


def hidden(text: str) -> str:
    """Describes a text that may be a secret, or have one in it, by its length."""
    return f"a text of {len(text)} characters" if text else '""'


def may_be_secret(text: str) -> bool:
    """Whether a text looks like a key, or like an address with a password in it."""
    return _KEY_MATERIAL.search(text) is not None or "@" in text or "://" in text
