"""The NATS connection: nats-py, the transport under it, and what leaves through it."""
