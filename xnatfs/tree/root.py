"""The top of a mount: README.txt and the sections.

Used by the composition of a mount (`fuse` and tests through `vfs`).
Threading: any thread.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from xnatfs.text import printable
from xnatfs.tree.generated import GeneratedFile, rendered
from xnatfs.tree.lists import list_files, lists_folder
from xnatfs.tree.names import spell_label
from xnatfs.tree.node import EPOCH, Branch, Node, inode_of
from xnatfs.tree.project_folders import archive_folder, projects_folder
from xnatfs.tree.resource import Sources
from xnatfs.tree.scope import SessionScope, by_project
from xnatfs.tree.status_files import control_folder
from xnatfs.tree.table_files import Tables, list_tables, tables_folder
from xnatfs.tree.views import scope_views, views_folder

# Empty files that keep indexers from crawling a server: macOS Spotlight, GNOME Tracker, Android-style media
# scanners. No `.ignore` or the like: `rg` and `fd` obey it also where somebody names a folder of the mount
# (measured), and would find nothing without a word. `fuse.indexers` notices who comes in all the same.
_KEEP_OUT = (".metadata_never_index", ".trackerignore", ".nomedia")

# One screen: what each section is for, then three commands to begin with.
_README = """\
This folder shows the XNAT server {server} ({manner}), as the user {user} sees it.

projects/   the server's files, each once:
            projects/PROJECT/subjects/SUBJECT/SESSION/SCANS/ID-TYPE/RESOURCE/...
archive/    the same files for scripts, with bare scan ids:
            archive/projects/PROJECT/experiments/SESSION/SCANS/ID/RESOURCE/...
            XNAT_DATA={mountpoint}/archive makes xnatpy read from here
tables/     results of FreeSurfer, ASHS, SPM ... over a whole project, as .csv, .xlsx and .parquet:
            tables/PROJECT/PIPELINE/TABLE.csv
views/      one sequence, or one resource, over a whole project:
            views/PROJECT/by-scan-type/TYPE/usable/NIFTI/SUBJECT_SESSION_SCAN_ID.nii.gz
            views/PROJECT/bids/ is a BIDS dataset; nifti/ beside it has DICOM-only scans, converted

A file is fetched when it is first read, and then cached on this machine. Names are labels (007 is not 7); \
accession ids work too.
getfattr -d FILE shows what the server says of a file. "Host is down" is the XNAT server that does not answer.

To begin with:
{commands}

xnatfs status     what the mount is doing, and what went wrong (also in {mountpoint}/.xnatfs/)
xnatfs refresh    check the server for changes now (otherwise new data shows within a minute)
xnatfs unmount {quoted}
"""
_COMMANDS = (
    ("ls {}/projects", "the projects you can read"),
    ("cat {}/tables/{}/README.txt", "the measurement tables of one, and what is built of each"),
    ("ls {}/views/{}/by-scan-type", "its sequences, each over all sessions"),
)


def _readme(sources: Sources, user: str, mountpoint: str) -> bytes:
    """The text: with a project of the user's once the list of projects is here, for which nothing waits."""
    manner = (
        "read-only, under a layer that stores changes on this machine (see `xnatfs status`)"
        if sources.settings.lower
        else "read-only"
    )
    project = min(map(spell_label, sources.listing_service.projects.known()), default="PROJECT")
    quoted = shlex.quote(mountpoint)
    commands = [(command.format(quoted, printable(shlex.quote(project))), why) for command, why in _COMMANDS]
    width = max(len(command) for command, _ in commands)
    text = _README.format(
        server=sources.settings.server,
        user=printable(user),
        manner=manner,
        mountpoint=mountpoint,
        quoted=quoted,
        commands="\n".join(f"  {command:{width}}  {why}" for command, why in commands),
    )
    return text.encode("utf-8", "surrogateescape")  # the mountpoint's name may be no UTF-8


def root_folder(
    sources: Sources, tables: Tables, user: str, mountpoint: str, report: Callable[[], dict[str, Any]]
) -> Branch:
    """The root of a mount."""

    def text() -> bytes:
        return _readme(sources, user, mountpoint)

    entries: dict[str, Node] = {
        "README.txt": GeneratedFile(text, text, lambda: EPOCH, inode_of("rendered", "README.txt")),
        "projects": projects_folder(sources, user),
        "archive": archive_folder(sources),
        "tables": tables_folder(sources, tables),
        "views": views_folder(sources),
    }

    def of_list(scope: SessionScope) -> Mapping[str, Node]:
        return {
            **scope_views(sources, scope),
            "tables": list_tables(tables, scope.identity[-1], lambda: by_project(scope)),
        }

    lists = lists_folder(sources, of_list)
    unlisted: dict[str, Node] = {".xnatfs": control_folder(sources, report)}
    unlisted |= {name: rendered(name, lambda: b"") for name in _KEEP_OUT}

    def listed() -> Mapping[str, Node]:
        return {**entries, "lists": lists} if list_files(sources.settings.lists) else entries

    return Branch(inode_of(""), listed, alias=unlisted.get)
