"""systemd: notifications and its file descriptor store, jobs, the journal."""
