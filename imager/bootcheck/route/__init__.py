"""in: a boot partition and a board. out: which chain it starts, and what is wrong with it."""
