"""Where a running mount may find other credentials: what `xnatfs login` stored, and the place the login in
use came from.

Used by `token_renewal`, and through it by `login_state` after a refusal.
Threading: any thread; no state.
"""

from __future__ import annotations

import logging

from xnatfs.auth import credentials as logins
from xnatfs.auth import token_store
from xnatfs.auth.credentials import ENVIRONMENT, STORED, TERMINAL, Credentials
from xnatfs.errors import UsageError
from xnatfs.server.connection import Connection

log = logging.getLogger(__name__)


class CredentialSearch:
    """Looks for credentials of the connection's user at its server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stored(self) -> Credentials | None:
        """What `xnatfs login` stored.

        Raises:
            UsageError: what is stored cannot be read.
        """
        found = self.stored_token()
        return logins.of(found, self._connection.logins.credentials.again) if found is not None else None

    def stored_token(self) -> token_store.StoredToken | None:
        """The same, without the secret if that is in the keyring."""
        here = (self._connection.server, self._connection.user)
        return next(
            (one for one in token_store.kept() if (one.server, one.user) == here and not one.expired), None
        )

    def newer(self, used: Credentials) -> Credentials | None:
        """A stored token newer than the one in use: another mount has renewed it, or there was a new login.

        Raises:
            UsageError: what is stored cannot be read.
        """
        if used.source != STORED:
            return None
        found = self.stored_token()
        if found is None or found.issued <= (used.issued or 0.0):
            return None
        return logins.of(found, used.again)

    def reread(self) -> Credentials | None:
        """What is now where the login in use was found; what is stored, if that place cannot be read again.

        Raises:
            UsageError: nothing is there any more, or it cannot be read.
        """
        used = self._connection.logins.credentials
        if is_given_once(used) or used.source == STORED or used.again is None:
            return self.stored()
        return used.again()

    def try_reread(self) -> Credentials | None:
        """`reread`; what cannot be read is a line in the log."""
        try:
            return self.reread()
        except UsageError as problem:
            log.warning("%s", problem)
            return None


def is_given_once(login: Credentials) -> bool:
    """Whether a login was typed or in the environment, where it cannot be read again."""
    return login.source.startswith(ENVIRONMENT) or login.source == TERMINAL
