"""A hostile server, a hostile neighbour on this machine, a hostile name: each tried, each harmless."""
