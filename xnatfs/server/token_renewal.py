"""Looks after the login of a mount that lasts for weeks: warns before its token expires, renews it where it
can, reads it again when told.

Used by `core` (which makes it), `run` (which starts it and passes on SIGHUP and the command `credentials`).
What it does by itself, every half minute at most: a token that `xnatfs login` got is renewed in the last
quarter of its life, at most 12 hours before its end; one that another mount renewed, or somebody logged in
anew, is taken; after a refusal it looks whether there are other credentials now, also on a cluster where
`xnatfs login` was called on another machine.
Threading: a thread of its own for that; `read_again` and `report` may be called by any.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from xnatfs.auth import credentials as logins
from xnatfs.auth import token_store
from xnatfs.auth.credentials import STORED, Credentials
from xnatfs.config import Settings
from xnatfs.errors import Failure, UsageError
from xnatfs.server import alias_tokens as remote
from xnatfs.server import identity
from xnatfs.server.connection import Connection
from xnatfs.server.credential_search import CredentialSearch, is_given_once
from xnatfs.server.token_lifetime import TokenLifetime

log = logging.getLogger(__name__)

_LOOK = 30.0  # seconds between two looks; short of what a laptop sleeps, so a clock that jumps is noticed
# seconds after the mount: whether strangers are refused matters when the first session ends, 15 minutes from
# now at least
_LEARN = 300.0
_LINGER = 60.0  # seconds until a token that was renewed is made worthless: other mounts have looked by then


class RetiredTokens:
    """The tokens that were replaced: made worthless once no other mount uses them any more."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._due: list[tuple[float, str]] = []  # when, and the alias

    def add(self, alias: str) -> None:
        """This one has been replaced just now."""
        self._due.append((time.monotonic() + _LINGER, alias))

    def give_back(self, *, even_early: bool = False) -> None:
        """Make those worthless whose time has come."""
        due = [one for one in self._due if even_early or one[0] <= time.monotonic()]
        for one in due:
            self._due.remove(one)
            with contextlib.suppress(Failure):
                remote.invalidate(self._connection, one[1])


class TokenRenewal:
    """The keeper of one mount's login.

    Args:
        anew: called after a refusal was lifted: what was found in between is not to be believed.
    """

    def __init__(self, connection: Connection, settings: Settings, anew: Callable[[], None]) -> None:
        self._connection = connection
        self._settings = settings
        self._anew = anew
        self._lock = threading.Lock()  # around what changes the login: one at a time
        self._stop = threading.Event()
        self._search = CredentialSearch(connection)
        self._retired = RetiredTokens(connection)
        self._noted: TokenLifetime | None = None  # of the login in use, when it was last looked at
        self._asked = settings.offline  # the server was asked for the expiry, or there is no need to
        self._learn_at: float | None = time.monotonic() + _LEARN
        self._said = "ok"
        self._renew_at: float | None = None  # not before that is a renewal tried again
        connection.logins.elsewhere = self._search.try_reread

    def start(self) -> None:
        """Look after it from now on."""
        if not self._settings.offline:
            threading.Thread(target=self._run, name="keeper", daemon=True).start()

    def close(self) -> None:
        """End, and give back the tokens that were replaced."""
        self._stop.set()
        if not self._connection.breaker.quiet(1.0):
            self._retired.give_back(even_early=True)

    # --- what people see ------------------------------------------------------------------------------------

    def state(self) -> str:
        """`ok`, `expires soon`, `expired`, or `refused` by the server."""
        if self._connection.logins.refused:
            return "refused"
        return self._lifetime().state

    def report(self) -> dict[str, Any]:
        """For `status`: no secrets."""
        login, state = self._connection.logins.credentials, self.state()
        expires = self._noted.expires if self._noted is not None else None
        when = _time(expires) if expires is not None else None
        text = ""
        if state == "refused":
            text = f"REFUSED by the server ({login.source}); `xnatfs login` brings the mount back"
        elif state == "expired":
            text = f"the token of {login.source} EXPIRED on {when}; `xnatfs login` brings the mount back"
        elif login.session:
            text = f"a session from the {login.source}; it ends unless it is used: `xnatfs login` replaces it"
        elif when is not None:
            text = f"the token of {login.source} is valid until {when}"
            if state == "expires soon":
                text += "; run `xnatfs login` before then"
        return {
            "from": login.source,
            "token": bool(login.owner) or remote.is_alias(login.user),
            "expires": when,
            "state": state,
            "text": text,
        }

    # --- told to --------------------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """Read the login again, and say in the log what came of it: for SIGHUP."""
        try:
            log.info("%s", self.read_again())
        except (Failure, UsageError) as problem:
            log.warning("could not reload credentials; keeping the current ones: %s", problem)

    def read_again(self, place: str = "") -> str:
        """Look for the login again, and use what is there now. What is being read goes on.

        Args:
            place: `login` for what `xnatfs login` keeps; "" for where the login came from.

        Returns:
            what came of it, in a sentence.

        Raises:
            UsageError: there is nothing to be read, or it is another user's. The login stays.
            Failure: the server refused what is there now, or does not answer. The login stays.
        """
        with self._lock:
            used = self._connection.logins.credentials
            login = self._search.stored() if place == "login" else self._search.reread()
            if login is None:
                if is_given_once(used):
                    raise UsageError(
                        f"a password from the {used.source} cannot be read again; run `xnatfs login`, or "
                        f"unmount and mount again"
                    )
                raise UsageError(
                    f"there is no login from {STORED} for {self._connection.user} "
                    f"at {self._connection.server}"
                )
            if (login.user, login.password, login.session) == (used.user, used.password, used.session):
                if self._connection.logins.refused:
                    raise UsageError(
                        f"{login.source} has the login that the server refused; run `xnatfs login`"
                    )
                return f"nothing new from {login.source}; keeping the login"
            self._take(login)
            return f"continues with the login from {login.source}"

    def _take(self, login: Credentials) -> None:
        if self._settings.offline:
            raise UsageError("the mount is offline and needs no login")
        refused = self._connection.logins.refused
        self._connection.logins.take(login)
        log.info("continues with the login from %s", login.source)
        if refused:
            self._anew()

    def _lifetime(self) -> TokenLifetime:
        """Of the login that is in use now."""
        login = self._connection.logins.credentials
        if self._noted is None or self._noted.login is not login:
            self._noted = TokenLifetime.of(login)
            self._asked = self._asked or login.expires is not None
            self._renew_at = None
        return self._noted

    # --- by itself ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(self._pause()):
            try:
                self.look()
            except (Failure, UsageError) as problem:
                log.warning("%s", problem)

    def _pause(self) -> float:
        """Until the next look: short where a token lives for seconds only."""
        lifetime = self._lifetime()
        if lifetime.expires is None:
            return _LOOK if self._asked else 2.0
        left, notice = lifetime.left, lifetime.notice
        if left > notice:
            return min(_LOOK, max(0.2, left - notice))
        due = left > 0 and lifetime.login.source == STORED and self._may_renew()
        return 0.2 if due else _LOOK

    def _may_renew(self) -> bool:
        return self._renew_at is None or time.monotonic() >= self._renew_at

    def look(self) -> None:
        """Do what is due.

        Raises:
            UsageError, Failure: something was, and it could not be done.
        """
        self._say()
        with self._lock:
            used = self._connection.logins.credentials
            if self._connection.logins.refused:
                self._look_elsewhere(used)
                return
            if self._take_newer(used):
                return
            if not self._asked:
                self._asked = True
                self._ask_for_expiry(used)
            due = self._learn_at is not None and time.monotonic() > self._learn_at
            if due and not self._connection.logins.session.refuses_strangers:
                self._learn_at = None
                self._connection.logins.learn()
                identity.remember(self._settings, used.owner or used.user, self._connection.known)
            if self.state() == "expires soon" and used.source == STORED and self._may_renew():
                self._renew(used)
            self._retired.give_back()

    def _say(self) -> None:
        state = self.state()
        if state != self._said:
            self._said = state
            if state != "ok":
                log.warning("%s", self.report()["text"])

    def _look_elsewhere(self, used: Credentials) -> None:
        login = self._search.try_reread()
        if login is not None and not self._connection.logins.turned_down(login):
            self._take(login)

    def _take_newer(self, used: Credentials) -> bool:
        """Another mount has renewed the token, or there was a new login."""
        login = self._search.newer(used)
        if login is None:
            return False
        self._take(login)
        return True

    def _ask_for_expiry(self, used: Credentials) -> None:
        if remote.is_alias(used.user):
            # A server before XNAT 1.8 does not show them; then the refusal will tell.
            with contextlib.suppress(Failure):
                issued, expires = remote.times(self._connection, used.user)
                self._noted = TokenLifetime(used, issued or time.time(), expires)

    def _renew(self, used: Credentials) -> None:
        """Swap the token for a new one. Where the server does not let it, the user has to log in."""
        self._renew_at = time.monotonic() + max(_LOOK, self._lifetime().left / 8)
        kept = self._search.stored_token()
        if kept is None:
            return  # logged out
        with token_store.renewing() as alone:
            if not alone or self._take_newer(used):
                return
            fresh, _ = token_store.keep(
                remote.token(self._connection, remote.issue(self._connection)), kept.place
            )
            self._take(logins.of(fresh, used.again))
        log.info("the token of %s was renewed; it is valid until %s", STORED, _time(fresh.expires or 0.0))
        self._retired.add(used.user)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
