"""`xnatfs login`: exchange a password for an alias token, which is stored until it expires."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from xnatfs.auth import credentials as logins
from xnatfs.auth import token_store
from xnatfs.auth.credentials import Credentials
from xnatfs.cli.format import say
from xnatfs.cli.options import login_options
from xnatfs.config import Settings
from xnatfs.daemon import control, mount_registry
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.server import alias_tokens as remote
from xnatfs.server import identity
from xnatfs.server.connection import Connection


@click.command("login")
@login_options
@click.option("--ask", is_flag=True, help="Ask for the password, even if one is found.")
@click.option(
    "--keep",
    type=click.Choice(["auto", token_store.KEYRING, token_store.FILE]),
    default="auto",
    show_default=True,
    help="Where to store the token.",
)
def command(
    server: str | None,
    user: str | None,
    config: Path | None,
    netrc: Path | None,
    allow_http: bool,
    ask: bool,
    keep: str,
) -> int:
    """Log in once, and store an alias token instead of the password.

    The password is searched for as in `xnatfs mount` (--config or --netrc, the environment, ~/.netrc,
    ~/.xnat.cfg, ~/.xnatPass, xnatctl's profiles, ~/.xnat_auth), or asked for; the session in XNAT_TOKEN does
    as well. It is sent once and never stored. The token goes into the desktop's keyring, or into a file that
    only you can read; it expires (after two days, unless the server's administrator chose otherwise), and
    running mounts renew it in time. Running mounts of this server and user switch to the new token at once.
    """
    login = _password(server, user, config, netrc, ask)
    connection = _connection(login, allow_http)
    try:
        try:
            name = connection.login()
        except Failure as failure:
            if not login.session or failure.cause is not Cause.LOGIN_REFUSED or not sys.stdin.isatty():
                raise
            # What this command is for; only the session is in its way.
            say(f"xnatfs: {failure}", err=True)
            connection = _connection(_ask(server, user, config, netrc), allow_http)
            name = connection.login()
        try:
            issued = remote.issue(connection)
        except Failure as failure:
            if failure.cause in (Cause.NO_ENTRY, Cause.NOT_ALLOWED, Cause.NOT_DATA):
                raise UsageError(
                    f"{connection.server} accepted the login, but issues no token to {name} ({failure})"
                ) from None
            raise
        before = [
            whole for one in kept(connection.server, name) if (whole := _whole(one))
        ]  # the keyring stores one token per name
        try:
            token, why_not = token_store.keep(
                remote.token(connection, issued), None if keep == "auto" else keep
            )
        except UsageError:
            invalidate(connection, remote.token(connection, issued))
            raise
        identity.remember(Settings(server=connection.server), name, connection.known)
        say(f"logged in to {token.server} as {name}; {until(token.expires)}")
        say(
            f"the token is stored in {token_store.where(token)}"
            + (f" ({why_not})" if why_not and keep == "auto" else "")
        )
        failed = _notify_mounts(token)
        for old in before:
            invalidate(connection, old)
    finally:
        connection.close()
    _warn_of_precedence(token)
    return 1 if failed else 0


def _connection(login: Credentials, allow_http: bool) -> Connection:
    return Connection(
        Settings(server=login.server, verify=login.verify, proxy=login.proxy, allow_http=allow_http), login
    )


def _ask(server: str | None, user: str | None, config: Path | None, netrc: Path | None) -> Credentials:
    return logins.ask(logins.choose(server, user, config=config, netrc_file=netrc), user)


def until(expires: float | None) -> str:
    """How long a token is valid, as text."""
    if expires is None:
        return "the server does not say how long the token is valid"
    left = expires - time.time()
    span = (
        f"{left / 86400:.0f} days"
        if left > 1.5 * 86400
        else f"{left / 3600:.0f} hours"
        if left > 7200
        else f"{left / 60:.0f} minutes"
    )
    return f"the token is valid until {time.strftime('%Y-%m-%d %H:%M', time.localtime(expires))} ({span})"


def _password(
    server: str | None, user: str | None, config: Path | None, netrc: Path | None, ask: bool
) -> Credentials:
    if ask:
        if not sys.stdin.isatty():
            raise UsageError("--ask needs a terminal")
        return _ask(server, user, config, netrc)
    chosen = logins.choose(server, user, config=config, netrc_file=netrc)
    try:
        return logins.find(chosen, user, config=config, netrc_file=netrc, stored=False, prompt=False)
    except UsageError:
        if not sys.stdin.isatty():
            raise UsageError(
                f"`xnatfs login` asks for the password of {chosen.url} on a terminal, and this is none; "
                f"call it where you can type, or set XNAT_USER and XNAT_PASS for this call"
            ) from None
    before = kept(chosen.url, user)
    if server is None and len(before) == 1:  # the last login says who it is, too
        user = before[0].user
    return logins.ask(chosen, user)


def kept(server: str | None, user: str | None) -> list[token_store.StoredToken]:
    """The stored logins, only those of this server and user if given."""
    return [one for one in token_store.kept() if server in (None, one.server) and user in (None, one.user)]


def _notify_mounts(token: token_store.StoredToken) -> bool:
    """Hand the token to running mounts; whether one of this server and user did not accept it."""
    failed = False
    for one in mount_registry.running():
        if (one.server, one.user) != (token.server, token.user):
            continue
        try:
            say(f"{one.mountpoint}: {control.ask(one.socket, 'credentials', timeout=60, place='login')}")
        except UsageError as problem:
            failed = True
            say(f"xnatfs: {one.mountpoint}: {problem}", err=True)
    return failed


def invalidate(connection: Connection, token: token_store.StoredToken) -> str:
    """Revoke a token; the reason if the server did not, or ""."""
    try:
        remote.invalidate(connection, token.alias)
    except Failure as failure:
        return "" if failure.cause is Cause.NO_ENTRY else str(failure)
    return ""


def _whole(token: token_store.StoredToken) -> token_store.StoredToken | None:
    try:
        return token_store.whole(token)
    except UsageError:
        return None


def _warn_of_precedence(token: token_store.StoredToken) -> None:
    for prefix in ("XNAT_", "XNATPY_"):
        if os.environ.get(prefix + "USER") and os.environ.get(prefix + "PASS"):
            say(
                f"xnatfs: {prefix}USER and {prefix}PASS in the environment take precedence over this "
                f"login; unset them to use it",
                err=True,
            )
