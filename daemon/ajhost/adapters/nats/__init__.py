"""The NATS connection: its life, log-in, transport, and the replies that leave through it."""
