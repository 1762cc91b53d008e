"""`xnatfs logout`: revoke the token of `xnatfs login`."""

from __future__ import annotations

import contextlib

import click

from xnatfs.auth import credentials as logins
from xnatfs.auth import token_store
from xnatfs.cli.format import say
from xnatfs.cli.login import invalidate, kept, until
from xnatfs.cli.options import server_option
from xnatfs.config import Settings
from xnatfs.daemon import mount_registry
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.server import identity
from xnatfs.server.connection import Connection


@click.command("logout")
@server_option("The XNAT server; needed only with several logins.")
@click.option("--user", metavar="NAME", help="The user name; needed only with several logins.")
@click.option(
    "--allow-http",
    is_flag=True,
    help="Send the token over plain http:// (anyone on the network can read it).",
)
def command(server: str | None, user: str | None, allow_http: bool) -> int:
    """Revoke the token of `xnatfs login` on the server, and delete it here.

    Mounts that use it can read only what is in their cache until the next login.
    """
    found = kept(logins.choose(server, user).url if server else None, user)
    if not found:
        raise UsageError("there is no login from `xnatfs login`" + (f" for {server}" if server else ""))
    if len(found) > 1:
        raise UsageError(
            "several logins are stored ("
            + ", ".join(f"{one.user} at {one.server}" for one in found)
            + "); name one"
        )
    token = found[0]
    problem = "" if token.expired else _given_back(token, allow_http)
    token_store.forget(token)
    say(f"the login of {token.user} at {token.server} was deleted")
    with contextlib.suppress(OSError, UsageError):
        known = (token.server, token.user)
        using = [one.mountpoint for one in mount_registry.running() if (one.server, one.user) == known]
        if using:
            places = ", ".join(using)
            say(f"{places} may have used it: only cached files can be read there until the next login")
    if problem:
        say(f"xnatfs: the server could not revoke the token; {until(token.expires)}: {problem}", err=True)
    return 1 if problem else 0


def _given_back(token: token_store.StoredToken, allow_http: bool) -> str:
    try:
        login = logins.of(token)
    except UsageError as problem:
        return str(problem)
    settings = Settings(server=token.server, verify=token.verify, proxy=token.proxy, allow_http=allow_http)
    connection = Connection(settings, login)
    try:
        connection.login(identity.recall(settings, token.user))
        return invalidate(connection, token_store.whole(token))
    except Failure as failure:
        return "" if failure.cause is Cause.LOGIN_REFUSED else str(failure)
    finally:
        connection.close()
