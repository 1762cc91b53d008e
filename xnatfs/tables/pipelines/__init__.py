"""One module a pipeline: the tables it feeds."""
