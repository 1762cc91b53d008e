"""Servers that answer in another way: every listing form that is sent x every plausible other answer."""
