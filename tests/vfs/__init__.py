"""The file system without a mount, against the stand-in."""
