"""The routes about logins and about the site: JSESSION, auth, alias tokens, buildInfo (xnat-rest.md 1, bx.md
6.2).

Used by `routes` (below /data) and `xapi`. Lives on the event loop.
"""

from __future__ import annotations

import json
import time
from urllib.parse import parse_qs

from .auth import GUEST, Token
from .call import Call
from .reply import HttpError, Reply, nothing, text

VERSION = "1.8.10"


def jsession(call: Call) -> Reply:
    """`/data/JSESSION`: the session id; DELETE ends the session."""
    if call.method == "DELETE":
        call.sessions.end(call.session)
        call.session = None
        return nothing()
    if call.method not in ("GET", "HEAD", "POST") or call.session is None:
        raise HttpError(405)
    body = call.session.id
    if call.flag("CSRF"):
        body += f"; XNAT_CSRF={call.session.csrf}"
    return text(body)


def who(call: Call) -> Reply:
    """`/data/auth`: names the user (the owner of an alias token)."""
    return text(f"User '{call.user.login}' is logged in")


def login(call: Call) -> Reply:
    """`PUT|POST /data/services/auth`: form login (xnatpy); the session id is the body."""
    form = parse_qs(call.body.decode("utf-8", "replace"))
    user = call.sessions.check(form.get("username", [""])[0], form.get("password", [""])[0])
    call.session = call.sessions.new_session(user)
    call.user = user
    return text(call.session.id)


def tokens(call: Call, parts: list[str]) -> Reply:
    """`/data/services/tokens/OPERATION[/user/USER | /ALIAS[/SECRET]]` (AliasTokenRestlet; xnat-rest.md 1)."""
    operation, arguments = parts[0], parts[1:]
    owner, alias = call.user.login, ""
    if arguments[:1] == ["user"] and len(arguments) == 2:
        owner = arguments[1]
    elif arguments:
        alias = arguments[0]
    token = call.sessions.any_token(alias)
    if alias and token is None:
        raise HttpError(404, f"Can't find an alias token with the alias {alias}")
    if call.user is GUEST:
        raise HttpError(403, "The guest user can't request alias tokens")
    if (
        owner != call.user.login or (token is not None and token.user is not call.user)
    ) and not call.user.admin:
        raise HttpError(
            403, "Non-admin users can only request operations on alias tokens for their own account"
        )
    if operation == "issue":
        if owner not in call.archive.users:
            raise HttpError(400, f"An error occurred retrieving the user: {owner}")
        return _json(_described(call.sessions.issue(call.archive.users[owner])))
    if operation == "show":  # all of the user's, secrets too; which one was named does not matter
        return _json([_described(token) for token in call.sessions.tokens_of(owner)])
    if operation == "validate":
        if token is None or len(arguments) < 2:
            raise HttpError(401, "You must specify both token and secret to validate a token.")
        valid = token.secret == arguments[1] and call.sessions.token(alias) is not None
        return _json({"valid": token.user.login if valid else None})
    if operation == "invalidate":
        call.sessions.forget_token(alias)
        return _json({"result": "OK"})
    raise HttpError(400, f"Unknown operation: {operation}")


def _described(token: Token) -> dict[str, object]:
    created = int(token.created * 1000)
    return {
        "xdatUserId": token.user.login,
        "alias": token.alias,
        "secret": token.secret,
        "singleUse": False,
        "estimatedExpirationTime": int(token.expires * 1000) - 1,
        "enabled": True,
        "created": created,
        "id": token.number,
        "disabled": 0,
        "timestamp": created,
        "expired": False,
        "validIPAddresses": None,
    }


def build_info() -> Reply:
    """`/xapi/siteConfig/buildInfo`: open without a login."""
    return _json(
        {
            "version": VERSION,
            "buildNumber": "Manual",
            "buildDate": "Tue Mar 05 06:07:08 UTC 2024",
            "commit": "v0",
            "isDirty": "false",
        }
    )


def uptime(started: float) -> Reply:
    seconds = int(time.monotonic() - started)
    return _json(
        {
            "days": str(seconds // 86400),
            "hrs": str(seconds // 3600 % 24),
            "mins": str(seconds // 60 % 60),
            "secs": str(seconds % 60),
        }
    )


def kill_sessions(call: Call, login_name: str) -> Reply:
    """`DELETE /xapi/users/active/{user}`: administrators, and users their own."""
    if not call.user.admin and call.user.login != login_name:
        raise HttpError(403)
    ids = [session.id for session in call.sessions.of_user(login_name)]
    call.sessions.end_all(login_name)
    return _json(ids)


def is_guest(call: Call) -> bool:
    return call.user is GUEST


def _json(value: object) -> Reply:
    data = json.dumps(value).encode()
    return Reply(200, data, [("Content-Type", "application/json;charset=ISO-8859-1")], "text", len(data))
