"""The host's shared queue: what a worker cannot start waits where any worker with a free slot finds it."""
