"""in: a release's name or URL. out: VerifiedRelease, proven and archived."""
