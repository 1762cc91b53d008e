"""Copies files of a server to this machine, without a mount."""
