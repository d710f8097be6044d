"""Counts the files and the jumps of one task and of one death, in a real host."""
