"""in: which packages, and where they lie. out: packages proven and archived."""
