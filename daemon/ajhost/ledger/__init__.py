"""The ledger: one shared file per process that holds its requests. Sans-IO: all of it works on a buffer."""
