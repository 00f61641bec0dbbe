"""in: the tree of files. out: GoldenImage: partition table, filesystems, block map."""
