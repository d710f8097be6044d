"""The NATS connection: its life, log-in with nats-py, transport, and the replies that leave through it."""
