"""Names to nodes: what the sections of a mount contain.

One module a section (projects and archive, tables, views, lists, control); `node.py` is the small interface
they share, `names.py` the spelling of names. Knows no FUSE. Nothing here speaks HTTP: names come from
`listing.service`, bytes from `content.manager`.
"""
