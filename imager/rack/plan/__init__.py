"""in: nodes, slots and cards. out: which card becomes which node."""
