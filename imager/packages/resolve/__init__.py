"""in: names of packages. out: what this computer's pacman would install, explained."""
