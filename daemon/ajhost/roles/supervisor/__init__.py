"""The supervisor: keeps workers, answers for the dead, and runs no user code."""
