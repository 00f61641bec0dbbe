"""in: a card that was made some time. out: what it says of itself, and whether that is still so."""
