"""in: names of packages and a VerifiedRelease. out: PackageSet, proven and archived."""
