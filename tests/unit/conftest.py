"""Hypothesis the same at every run, and patient with a busy machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("tests", derandomize=True, deadline=None, max_examples=300)
settings.load_profile("tests")
