"""in: a release's tarball. out: a tree of files that is safe to lay out on a card."""
