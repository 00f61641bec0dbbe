"""in: NodeImage and a disk. out: VerifiedCard, every written byte read back, and its receipt."""
