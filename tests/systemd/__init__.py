"""The installed package under a real systemd."""
