"""in: one file of the boot partition. out: what it says, and whether it is whole."""
