"""in: this computer, a cache, a rack. out: what is fit for the work, how to mend the rest."""
