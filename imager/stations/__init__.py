"""in: a rack, and minions of its Salt master that have card readers. out: the cards, made there."""
