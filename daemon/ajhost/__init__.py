"""Hosts Python handlers for Choria AsyncJobs. Handler authors import from here."""

from ajhost.api import InvalidPayload, Task, TerminateTask, Worker

__version__ = "0.1.0"

__all__ = ["InvalidPayload", "Task", "TerminateTask", "Worker", "__version__"]
