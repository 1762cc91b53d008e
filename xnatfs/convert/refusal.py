"""Why a series, or a part of one, is not converted.

Used by every step of a conversion. Immutable values, any thread.
"""

from __future__ import annotations


class Refusal(Exception):
    """What was found cannot be converted, or what came of it cannot be trusted; the text is the sentence to
    show. It follows from the files and the converter: trying again gives the same.
    """
