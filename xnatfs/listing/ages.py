"""How old a subject was at a session: as the session says, else from what is known of the birth.

Used by the tables and the BIDS view. Ages are in years, as texts. Pure functions.
"""

from __future__ import annotations

import datetime
import re
from typing import NamedTuple

_YEAR = re.compile(r"([0-9]{4})(?:-|\Z)")
_DAYS_A_YEAR = 365.25


class Age(NamedTuple):
    """An age in years ("" where nothing tells), and where it comes from: `session`, `dob` or `yob`."""

    years: str
    source: str


def age_at(own: str, dob: str, yob: str, date: str) -> Age:
    """The age at a session.

    With a date of birth and one of the session it has two decimals; where only years are known it is their
    difference, which may be one too much. Before the birth nobody has an age.

    Args:
        own: the session's own age, which is taken as it is.
        dob, yob: the date (or as much of it as is known) and the year of birth; "" for unknown.
        date: of the session.
    """
    if own:
        return Age(own, "session")
    born, then = _date(dob), _date(date)
    if born is not None and then is not None:
        days = (then - born).days
        return Age(f"{days / _DAYS_A_YEAR:.2f}", "dob") if days >= 0 else Age("", "")
    year, at = _YEAR.match(dob) or _YEAR.match(yob), _YEAR.match(date)
    if year is not None and at is not None and 0 <= int(at[1]) - int(year[1]) <= 150:
        return Age(str(int(at[1]) - int(year[1])), "dob" if year.string == dob else "yob")
    return Age("", "")


def _date(text: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None
