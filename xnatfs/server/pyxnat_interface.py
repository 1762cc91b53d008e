"""pyxnat's `Interface`, on a session that is logged in already.

Used by `connection`, for who asks for it: pyxnat is an extra. Any thread may make one; pyxnat itself says
nothing of threads.
"""

from __future__ import annotations

from typing import Any

import requests

from xnatfs.auth.credentials import Credentials
from xnatfs.extras import load


def make_interface(server: str, login: Credentials, session: requests.Session) -> Any:
    """An Interface whose requests go over this session.

    pyxnat sends nothing until its first call. It would then try the password twice (/data, /REST): two steps
    towards XNAT's lock-out for one wrong password, so the entry point is set and the login is the session's.

    Raises:
        MissingExtra: pyxnat is not installed.
    """
    # Of a login that is a session there are none; pyxnat asks for them if they are missing.
    user, password = login.user or "-", login.password or "-"
    interface = load("pyxnat", "pyxnat").Interface(server, user, password)
    interface._entry = "/data"
    interface._http.close()
    interface._http = session
    return interface
