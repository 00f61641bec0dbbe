"""in: VerifiedRelease. out: GoldenImage, one per release, and the boot check."""
