"""in: GoldenImage and rack.toml. out: NodeImage, the golden image plus one node's delta."""
