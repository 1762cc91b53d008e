"""The XNAT server: one logged-in connection, listings as records, contents as streams. The only place that
speaks HTTP.

Knows nothing of trees, caches or FUSE. How a real XNAT answers is quoted in comments from its source as
"XNAT: ...".
"""
