"""in: questions, orders, secrets for stations. out: what they said, all carried by Salt."""
