"""Policy without I/O: which server, which worker, what recovery does. The time is an argument."""
