"""Secrets in texts of any origin: what they look like, and texts without them."""

from __future__ import annotations

import re

NKEY_SEED = r"\bS[ACNOPUX][A-Z2-7]{56}\b"
"""S, its kind, base32 (github.com/nats-io/nkeys)."""
# user, password or token in a URL, and seeds
_SECRET = re.compile(rf"(?<=://)[^\s/\"']+(?=@)|{NKEY_SEED}")


def without_secrets(text: str) -> str:
    """`text` with `***` in the place of what stands before the host of an address, and of seeds."""
    return _SECRET.sub("***", text)
