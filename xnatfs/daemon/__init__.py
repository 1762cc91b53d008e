"""One running mount: put together, served, watched, ended; and how other processes find it and talk to it."""
