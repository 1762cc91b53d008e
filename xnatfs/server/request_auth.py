"""What a request carries of a login.

Used by `http_transport`, `login_state`, `server_address` and `connection`. Each is or makes an `auth` of
`requests`, which calls it last. Any thread; no state.
"""

from __future__ import annotations

from collections.abc import Callable

import requests

from xnatfs.auth.credentials import Credentials

Auth = Callable[[requests.PreparedRequest], requests.PreparedRequest]


def auth_of(login: Credentials) -> Auth:
    """What a request carries besides the session: nothing where the login is a session."""
    if login.session:
        return without_password
    return requests.auth.HTTPBasicAuth(login.user.encode(), login.password.encode())


def as_stranger(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Neither password nor session."""
    request.headers.pop("Cookie", None)
    return without_password(request)


def without_password(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Whatever else the request carries."""
    request.headers.pop("Authorization", None)
    return request
