"""in: the release's tree and a version of Salt. out: Salt and what it needs, as its files."""
