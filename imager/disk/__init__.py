"""in: the bytes of a disk. out: its partitions, FAT and ext4 files, ranges in use. README.md."""
