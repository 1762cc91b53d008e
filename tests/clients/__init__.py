"""Unmodified real clients (pyxnat, bx, xnatpy) against the stand-in: what works on a real XNAT must work on
it.
"""
