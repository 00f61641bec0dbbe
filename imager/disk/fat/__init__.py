"""in: a FAT partition's bytes. out: its folders, files and clusters."""
