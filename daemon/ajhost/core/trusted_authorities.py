"""Whom an interpreter trusts to vouch for servers, as one process tells it to another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trust:
    """`where`: interpreter and stores, for people. `digest` is the same for the same authorities, wherever they lie."""

    where: str
    digest: str

    def difference(self, other: Trust) -> str:
        """What a worker that has `other` must be told of; empty when both trust the same."""
        if self.digest == other.digest:
            return ""
        return (
            f"the handlers' interpreter trusts others than the host's: {other.where}; the host has {self.where}. "
            "Workers may refuse a certificate that the host accepts: name the authority with nats.tls.ca"
        )
