"""Names to nodes: what the rooms of a mount contain.

One module a room (projects, archive, control; tables and views later); `node.py` is the small interface they
share, `names.py` the spelling of names. Knows no FUSE. Nothing here speaks HTTP: names come from
`listing.service`, bytes from `content.manager`."""
