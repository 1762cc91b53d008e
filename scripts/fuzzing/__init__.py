"""The fuzz tests of `tests/fuzz` for as long as wanted, in several processes: the package behind
`scripts/fuzz`.

- `__main__` is the command: rounds of pytest, one test each, with many examples and a database of what was
  found;
- `bytewise` is atheris on the parsers of bytes, where it is installed: guided by which lines run, as
hypothesis is not."""
