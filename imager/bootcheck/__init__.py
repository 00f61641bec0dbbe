"""in: a card's bytes. out: which boards would start from them, and what stops the others."""
