"""Recovery: what a process that died or hangs cannot answer is answered, or runs elsewhere."""
