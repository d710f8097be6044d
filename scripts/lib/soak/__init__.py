"""The long fault run: load, faults, and a verdict over every single request."""
