"""in: what became of each card. out: the rack's ledger."""
