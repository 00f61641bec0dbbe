"""in: the golden image and a node's files. out: the blocks that differ."""
