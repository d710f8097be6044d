"""What the host uses of the outside: kernel, NATS, systemd, HTTP, metrics, logs. One module for each foreign thing."""
