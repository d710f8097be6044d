"""The certificate authorities that an interpreter trusts, as the template reports them to the supervisor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trust:
    """An interpreter's trust. `where`: its path and stores in words. `digest`: equal for the same authorities."""

    where: str
    digest: str

    def difference(self, other: Trust) -> str:
        """Returns the warning for workers whose trust is `other`; empty when both trust the same authorities."""
        if self.digest == other.digest:
            return ""
        return (
            f"the handlers' interpreter trusts others than the host's: {other.where}; the host has {self.where}. "
            "Workers may refuse a certificate that the host accepts: name the authority with nats.tls.ca"
        )
