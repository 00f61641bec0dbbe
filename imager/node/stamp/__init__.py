"""in: a node image. out: the signed proof of it that a card carries."""
