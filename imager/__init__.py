"""picloud-image: from a signed release to a Raspberry Pi cluster that answers."""
