"""Who asks the server for what, and when: single flight, waiting with deadlines, listings held and renewed, contents on their way.

Between the tree (which wants names and bytes now) and the server and the cache (which have them, some time).
"""
