"""Hosts Python handlers for Choria AsyncJobs. Handler authors import `Task` and `TerminateTask` from here."""

from ajhost.api import Task, TerminateTask

__version__ = "0.1.0"

__all__ = ["Task", "TerminateTask", "__version__"]
