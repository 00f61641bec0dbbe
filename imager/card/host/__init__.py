"""in: this computer. out: its disks: what they are, who uses them, which may be written."""
