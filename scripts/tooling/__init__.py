"""The programs that people use, tried on a mount, each result compared with the truth. The package behind
`scripts/tools`.

- `program` says what a row is, and what its check has at hand; `catalogue/` has the rows;
- `checks` are the comparisons that many rows share;
- `truth` writes the true files beside the mount, from the same archive build as the stand-in's;
- `__main__` is the command: it starts the stand-in (as the benchmarks do), gives every program a mount of its
  own that has read nothing yet, and writes docs/tools.md;
- `terminal` types into programs that need a terminal; `page` reads and writes docs/tools.md.
"""
