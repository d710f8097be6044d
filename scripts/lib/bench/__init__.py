"""Benchmarks of the host beside others, on real servers and processes."""
