"""What the host uses of the outside: the kernel, NATS, systemd, HTTP, metrics, logs. One module a foreign thing."""
