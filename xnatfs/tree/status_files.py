"""`.xnatfs/` (unlisted): what the mount is doing, as files. No secrets.

Used by `root`; the same report answers `xnatfs status`.
Threading: any thread; texts are computed from snapshots.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from xnatfs.activity import activity
from xnatfs.text import printable
from xnatfs.tree.generated import rendered
from xnatfs.tree.node import Branch, inode_of
from xnatfs.tree.resource import Sources

_STATUS_TTL_S = 2.0  # the size `stat` reported is the size the `cat` after it reads


def control_folder(sources: Sources, report: Callable[[], dict[str, Any]]) -> Branch:
    """The folder with `status.json`, `progress.txt`, `errors.txt`, `oddities.txt` and `config.json`."""
    files = {
        "status.json": rendered(".xnatfs/status.json", lambda: _json(report()), _STATUS_TTL_S),
        "progress.txt": rendered(".xnatfs/progress.txt", lambda: _progress(report()), _STATUS_TTL_S),
        "errors.txt": rendered(".xnatfs/errors.txt", lambda: _errors(sources), _STATUS_TTL_S),
        "oddities.txt": rendered(".xnatfs/oddities.txt", lambda: _oddities(sources), _STATUS_TTL_S),
        "config.json": rendered(".xnatfs/config.json", lambda: _json(configuration(sources)), _STATUS_TTL_S),
    }
    return Branch(inode_of(".xnatfs"), lambda: files)


def configuration(sources: Sources) -> dict[str, Any]:
    """The settings of the mount."""
    settings = sources.settings
    limits = {name: getattr(settings.limits, name) for name in settings.limits.__dataclass_fields__}
    return {
        "server": settings.server,
        "projects": list(settings.projects),
        "cache_dir": str(settings.cache_dir),
        "state_dir": str(settings.state_dir),
        "shared_cache": settings.shared_cache,
        "serve_bad_digests": settings.serve_bad_digests,
        "limits": limits,
    }


def _progress(report: dict[str, Any]) -> bytes:
    lines = activity(report) or ["nothing is in progress"]
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")


def _errors(sources: Sources) -> bytes:
    lines = [
        f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(event.when))}  {printable(event.text)}"
        for event in sources.diagnostics.recent()
    ]
    return ("\n".join(lines) + "\n" if lines else "no errors\n").encode("utf-8", "backslashreplace")


def _oddities(sources: Sources) -> bytes:
    lines = [printable(anomaly) for anomaly in sources.diagnostics.oddities()]
    head = "Items that the server lists and the tree cannot show as they are:\n"
    return (head + "\n".join(lines) + "\n" if lines else "nothing unusual was found\n").encode(
        "utf-8", "backslashreplace"
    )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
