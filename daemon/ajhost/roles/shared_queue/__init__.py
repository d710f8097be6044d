"""The host's shared queue: a request that a worker cannot start waits for any worker with a free slot."""
