"""in: a target. out: ClaimedCard, ours alone and blank."""
