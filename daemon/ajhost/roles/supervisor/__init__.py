"""The supervisor: keeps workers, answers for the dead, and runs no user code."""

from ajhost.roles.supervisor.main import run

__all__ = ["run"]
