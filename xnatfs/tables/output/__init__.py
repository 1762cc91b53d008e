"""A table as a file: column types and formats."""
