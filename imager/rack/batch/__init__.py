"""in: a plan. out: many cards, written at once."""
