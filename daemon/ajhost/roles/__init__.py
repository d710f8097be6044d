"""The processes of a host: supervisor, template and worker, and what they share."""
