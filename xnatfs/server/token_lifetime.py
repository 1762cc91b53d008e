"""How long the token in use is good, and when that is worth a warning.

Used by `token_renewal`.
Threading: a value; any thread.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from xnatfs.auth.credentials import Credentials

_NOTICE_S = 12 * 3600.0  # before the end, at most: the rest is not worth a warning


@dataclass(frozen=True)
class TokenLifetime:
    """From when to when the token of a login is good. Times in seconds since 1970 by this machine's clock.

    Attributes:
        expires: None where it is not known, or the login is a password.
    """

    login: Credentials
    issued: float
    expires: float | None

    @classmethod
    def of(cls, login: Credentials) -> TokenLifetime:
        """As far as the login itself says; a token of unknown age is taken for a new one."""
        return cls(login, login.issued or time.time(), login.expires)

    @property
    def left(self) -> float:
        """Seconds until it expires."""
        return math.inf if self.expires is None else self.expires - time.time()

    @property
    def notice(self) -> float:
        """How many seconds before the end it is renewed, and the user warned: the last quarter of its
        life.
        """
        return 0.0 if self.expires is None else min((self.expires - self.issued) / 4, _NOTICE_S)

    @property
    def state(self) -> str:
        """`ok`, `expires soon` or `expired`."""
        left = self.left
        return "expired" if left <= 0 else "expires soon" if left < self.notice else "ok"
