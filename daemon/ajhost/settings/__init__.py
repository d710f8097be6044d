"""The configuration: files and environment to frozen values, or every mistake at once."""
