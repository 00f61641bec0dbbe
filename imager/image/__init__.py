"""in: VerifiedRelease. out: GoldenImage, one per release."""
