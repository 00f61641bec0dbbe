"""in: proven pacman packages. out: their files on the card, as pacman would have put them there."""
