"""The connection and the listings against the stand-in, over real HTTP."""
