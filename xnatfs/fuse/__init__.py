"""The kernel's side of a mount."""
