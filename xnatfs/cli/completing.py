"""The words that a shell can complete: mounts, servers, projects, tables. From this machine, never from a
server.

Used by the commands as `shell_complete`. What each needs is imported when it is asked: every command imports
this module.
"""

from __future__ import annotations

import contextlib
import io

import click
from click.shell_completion import CompletionItem

from xnatfs.config import cache_home
from xnatfs.daemon import mount_registry
from xnatfs.errors import UsageError


def mounts(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """The mountpoints of this user's mounts."""
    with contextlib.suppress(OSError, UsageError):
        return [one.mountpoint for one in mount_registry.running() if one.mountpoint.startswith(begun)]
    return []


def servers(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """The names of servers."""
    from xnatfs.auth.credentials import names

    # A warning of a file that others can read belongs to a command, not into its completion.
    with contextlib.suppress(OSError, UsageError), contextlib.redirect_stderr(io.StringIO()):
        return [one for one in names() if one.startswith(begun)]
    return []


def projects(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """The projects that any server listed to any mount of this user."""
    import sqlite3

    from xnatfs.cache.listing_store import ListingStore
    from xnatfs.listing.codec import StoredListings

    found: set[str] = set()
    for path in cache_home().glob("*/listings.sqlite"):
        with contextlib.suppress(OSError, sqlite3.Error):
            stored = StoredListings(ListingStore(path))
            try:
                kept = stored.projects()
            finally:
                stored.close()
            found |= kept.value.keys() if kept is not None else set()
    return sorted(one for one in found if one.startswith(begun))


def paths_and_folder(
    context: click.Context, parameter: click.Parameter, begun: str
) -> list[str] | list[CompletionItem]:
    """Paths in the tree, and folders of this machine where none begins so."""
    return paths(context, parameter, begun) or [CompletionItem(begun, type="dir")]


def paths(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """The beginnings of paths in the tree: what is at the top, and the projects below it."""
    top, slash, begun_project = begun.partition("/")
    if not slash:
        return [f"{one}/" for one in ("projects", "archive", "tables", "views") if one.startswith(begun)]
    if top in ("projects", "tables", "views"):
        return [f"{top}/{one}/" for one in projects(context, parameter, begun_project)]
    return []


def tables(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """All tables, those of plug-ins too."""
    from xnatfs.tables.engine.from_listings import LISTED
    from xnatfs.tables.registry import with_plugins

    return [one for one in (*LISTED, *with_plugins()[0]) if one.startswith(begun)]
