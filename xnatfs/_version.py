"""The version of xnatfs, in the one place where it is written.

`pyproject.toml` reads it from here, and so does every module that needs it: importing the version loads
nothing else of the package.
"""

__version__ = "0.1.0"
