"""in: an ext4 partition's bytes. out: its folders, files, journal and blocks in use."""
