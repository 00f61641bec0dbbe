"""What a Raspberry Pi needs on its boot partition, and how to tell whether it is there."""
