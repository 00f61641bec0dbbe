"""in: a card's bytes. out: which Raspberry Pi would start from them, and what stops the rest."""
