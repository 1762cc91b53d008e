"""Credentials: where they are found, and the token store."""
