"""Every parser of what a server sends, or what lies on this disk, under documents that are almost right."""
