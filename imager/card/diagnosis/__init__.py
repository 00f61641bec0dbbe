"""in: bytes that are not as written. out: which partition and file, and what kind of damage."""
