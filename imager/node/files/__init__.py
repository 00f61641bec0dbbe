"""in: Rack, overlays, keys. out: every file of one node's card that is its own."""
