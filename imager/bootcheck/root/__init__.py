"""in: root= and the partitions of a card. out: which one is the root, and what is wrong with it."""
