"""in: rack.lock and the archive. out: all that it pins in one file, and such a file taken in."""
