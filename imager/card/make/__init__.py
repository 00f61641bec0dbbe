"""in: NodeImage and a target. out: a card with its receipt; every step in order."""
