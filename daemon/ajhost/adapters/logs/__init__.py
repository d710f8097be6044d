"""Log records and printed lines: their text and labels, their routing to handlers, and their outputs."""
