"""The supervisor: starts, checks and replaces workers, answers for dead ones, and runs no user code."""
