"""in: a file or a URL. out: the image of any system in it, unpacked while it is read once."""
