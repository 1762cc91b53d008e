"""The layers one by one, without a server."""
