"""in: words of a person. out: the cards of a rack in a folder, and back on cards."""
