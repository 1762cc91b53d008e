"""What earlier logins found, by server and login: a remount need not look for the server again, and an
offline one knows its user.

Used by `core`. One small JSON file in the state directory, 0600; no secrets. A memory only: lost or damaged,
it costs two requests.
Threading: called once a mount, by one thread.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from xnatfs.config import Settings, private_folder
from xnatfs.disk import write_private_json
from xnatfs.server.login_state import Known


def recall(settings: Settings, login: str) -> Known | None:
    """What the last login under this name at this server found."""
    found = _read(_file(settings)).get(_key(settings, login))
    if not isinstance(found, list):
        return None
    try:
        server, user, version, *closed = found
        return Known(str(server), str(user), str(version), closed == [True])
    except ValueError:
        return None


def remember(settings: Settings, login: str, known: Known) -> None:
    """Keep it for the next time."""
    path = _file(settings)
    everything = _read(path)
    if everything.get(_key(settings, login)) == list(known):
        return
    everything[_key(settings, login)] = list(known)
    private_folder(path.parent)
    with contextlib.suppress(OSError):
        write_private_json(path, everything)


def _file(settings: Settings) -> Path:
    return settings.state_dir / "servers" / "logins.json"


def _key(settings: Settings, login: str) -> str:
    return f"{settings.server} {login}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
