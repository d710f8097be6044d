"""The fuzz campaign: changed input for every reader, and for a host that serves."""
