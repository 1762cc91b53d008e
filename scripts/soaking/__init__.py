"""Weeks of use in an hour: many programs on one mount of a server that fails all the time. The package behind
`scripts/soak`.

- `__main__` is the command: it starts the stand-in and the mount (as the benchmarks do), forks the workers
  and judges what they found;
- `truth` has the data and what every path has to hold, from the same archive build as the stand-in's, never
  through xnatfs;
- `jobs` are what a worker does: real tools and plain reads, every byte compared; `worker` runs them one after
  the other and tells of each;
- `watch` looks at the daemon (memory, descriptors, threads, cache) and for processes that nothing can end;
- `report` is the result as text, JSON and a section of docs/soak.md.
"""
