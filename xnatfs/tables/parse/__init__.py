"""Parsers of the files that pipelines write."""
