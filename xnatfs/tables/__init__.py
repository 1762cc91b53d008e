"""Measurement tables: one module a pipeline, which says what files it reads, how they parse and which columns
they give.
"""
