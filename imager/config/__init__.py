"""in: rack.toml. out: Rack, a value that knows nothing of keys or cards."""
