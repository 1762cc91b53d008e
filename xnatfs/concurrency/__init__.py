"""Waiting, shared calls and pools: what every layer above the server uses."""
