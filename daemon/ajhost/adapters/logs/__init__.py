"""Log records and printed lines: what they say, which handler gets them, and where they go."""
