"""Linux: processes, sockets, channels between processes, and ledger files."""
