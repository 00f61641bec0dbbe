"""in: NodeImage and a claimed card. out: WrittenCard, then VerifiedCard; bad ranges mended."""
