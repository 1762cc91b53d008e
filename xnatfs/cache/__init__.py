"""What is kept on this machine: contents (LRU, capped in bytes), and what was learnt about a server's files.

Knows no server, no tree and no FUSE: keys are opaque strings.
"""
