"""An embedded XNAT stand-in with sample data, for trying xnatfs and for its tests.

Imports nothing of the rest of xnatfs, so that what the client believes about XNAT can never leak into what the server does.
"""
