"""in: what was done to a card. out: one JSON file that says so."""
