"""The tree against the truth, with a server that grants every form and one that grants only what is
proven.
"""

from __future__ import annotations

import errno
import stat

import pytest

from tests.mount.spelling import Spelling
from tests.support import md5, read, walk
from tests.vfs.conftest import Compose
from xnatfs.core import Core
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.data.truth import TrueFile, files
from xnatfs.demo.server import DemoServer
from xnatfs.errors import UsageError
from xnatfs.server.downloads import out_of_reach

PROJECTS = READABLE


@pytest.fixture(params=["full", "proven"])
def mounted(request: pytest.FixtureRequest, lab: DemoServer, compose: Compose) -> Core:
    lab.switches.profile = request.param
    return compose(lab)


def truth(lab: DemoServer, project: str, room: str = "projects") -> dict[str, TrueFile]:
    spelling = Spelling(lab.archive, files(lab.archive, project, "demo"))
    return spelling.people() if room == "projects" else spelling.programs()


def shown(mounted: Core, path: str) -> dict[str, tuple[int, int]]:
    """Path below `path` -> (size, inode)."""
    return {
        name[len(path) + 1 :]: (attributes.size, attributes.inode)
        for name, attributes in walk(mounted.vfs, path)
    }


@pytest.mark.parametrize("project", PROJECTS)
def test_both_rooms_have_every_file_of_the_server_once(mounted: Core, lab: DemoServer, project: str) -> None:
    for room, base in (("projects", f"/projects/{project}"), ("archive", f"/archive/projects/{project}")):
        expected = truth(lab, project, room)
        found = shown(mounted, base)
        assert set(found) == set(expected)
        assert {path: size for path, (size, _) in found.items()} == {
            path: file.listed_size for path, file in expected.items()
        }
        assert len({inode for _, inode in found.values()}) == len(found)


def test_every_small_file_reads_as_the_server_has_it(mounted: Core, lab: DemoServer) -> None:
    full = lab.switches.profile == "full"
    for project in PROJECTS:
        for path, file in truth(lab, project).items():
            where = f"/projects/{project}/{path}"
            if file.gone or (full and file.listed_digest not in ("", file.digest)):
                with pytest.raises(OSError) as caught:
                    read(mounted.vfs, where)
                assert caught.value.errno == errno.EIO
            elif out_of_reach(file.path):
                pass  # see test_names_out_of_reach.py
            elif file.size < 1 << 20:
                assert md5(read(mounted.vfs, where)) == file.digest, where
                assert mounted.vfs.attributes(where).size == file.size


def test_one_file_is_the_same_whatever_the_path(mounted: Core, lab: DemoServer) -> None:
    same = {(file.resource_id, file.path): path for path, file in truth(lab, "ALFA", "archive").items()}
    for path, file in truth(lab, "ALFA").items():
        one = mounted.vfs.attributes(f"/projects/ALFA/{path}")
        assert one == mounted.vfs.attributes(f"/archive/projects/ALFA/{same[file.resource_id, file.path]}")
    path, file = next(iter(truth(lab, "ALFA").items()))
    first = read(mounted.vfs, f"/projects/ALFA/{path}")
    lab.clear_log()
    assert read(mounted.vfs, f"/archive/projects/ALFA/{same[file.resource_id, file.path]}") == first
    assert lab.requests("/files/") == []


def test_ids_resolve_but_are_not_listed(mounted: Core, lab: DemoServer) -> None:
    vfs = mounted.vfs
    file = next(one for one in files(lab.archive, "ALFA", "demo") if one.kind == "scan")
    people = next(path for path, one in truth(lab, "ALFA").items() if one == file).split("/")
    subject, session, scan, resource = people[1], people[2], people[4], people[5]
    aliases = [
        (f"/projects/ALFA/subjects/{file.subject_id}", f"/projects/ALFA/subjects/{subject}"),
        (
            f"/projects/ALFA/subjects/{subject}/{file.session_id}",
            f"/projects/ALFA/subjects/{subject}/{session}",
        ),
        (
            f"/projects/ALFA/subjects/{subject}/{session}/SCANS/{file.scan}",
            f"/projects/ALFA/subjects/{subject}/{session}/SCANS/{scan}",
        ),
        (
            f"/archive/projects/ALFA/experiments/{file.session_id}",
            f"/archive/projects/ALFA/experiments/{session}",
        ),
        (f"/archive/projects/ALFA/subjects/{file.subject_id}", f"/archive/projects/ALFA/subjects/{subject}"),
    ]
    for alias, plain in aliases:
        assert vfs.attributes(alias).inode == vfs.attributes(plain).inode
        folder, _, name = alias.rpartition("/")
        assert name not in dict(vfs.entries(folder))
    number = f"/projects/ALFA/subjects/{subject}/{session}/SCANS/{scan}/{file.resource_id}"
    vfs.entries(
        number.rpartition("/")[0] + "/" + resource
    )  # once looked into, the number is known everywhere
    assert vfs.attributes(number).inode == vfs.attributes(number.rpartition("/")[0] + "/" + resource).inode


def test_a_label_wins_over_an_id(mounted: Core, lab: DemoServer) -> None:
    """In MESSY a session is called DEMO_E00002, which is the id of another one; scan 5 has the type 1."""
    listed = dict(mounted.vfs.entries("/projects/MESSY/subjects/m02"))
    assert "DEMO_E00002" in listed
    assert (
        mounted.vfs.attributes("/projects/MESSY/subjects/m02/DEMO_E00002").inode
        == listed["DEMO_E00002"].inode
    )
    scans = dict(mounted.vfs.entries("/archive/projects/MESSY/experiments/m01_scans/SCANS"))
    assert {"1", "5"} <= set(scans)
    assert read(
        mounted.vfs, "/archive/projects/MESSY/experiments/m01_scans/SCANS/1/NIFTI/which.txt"
    ).startswith(b"DEMO_E")
    assert b"scan 1 type T2" in read(
        mounted.vfs, "/archive/projects/MESSY/experiments/m01_scans/SCANS/1/NIFTI/which.txt"
    )


def test_hostile_paths_are_reported_and_shown_nowhere(mounted: Core) -> None:
    names = [name for name, _ in walk(mounted.vfs, "/projects/MESSY/subjects/m05")]
    assert not [name for name in names if "passwd" in name]
    oddities = read(mounted.vfs, "/.xnatfs/oddities.txt").decode()
    assert "passwd" in oddities and "\x1b" not in oddities


def test_folders_and_files_have_the_modes_of_a_read_only_tree(mounted: Core) -> None:
    for name, attributes in mounted.vfs.entries("/"):
        kind = stat.S_IFREG | 0o644 if name == "README.txt" else stat.S_IFDIR | 0o755
        assert attributes.mode == kind
    assert [name for name, _ in mounted.vfs.entries("/")] == [
        "README.txt",
        "projects",
        "archive",
        "tables",
        "views",
    ]
    assert [name for name, _ in mounted.vfs.entries("/archive")] == ["projects"]


def test_inode_numbers_are_the_same_in_the_next_mount(
    mounted: Core, lab: DemoServer, compose: Compose
) -> None:
    first = shown(mounted, "/projects/DWI")
    assert shown(compose(lab, "other"), "/projects/DWI") == first


def test_a_project_filter_shows_only_these(lab: DemoServer, compose: Compose) -> None:
    with pytest.raises(UsageError, match=r"no project 'SECRET' that demo can read$"):
        compose(lab, "other", projects=("DWI", "SECRET"))
    vfs = compose(lab, projects=("DWI",)).vfs
    assert [name for name, _ in vfs.entries("/projects")] == ["DWI"]
    assert [name for name, _ in vfs.entries("/archive/projects")] == ["DWI"]
    with pytest.raises(OSError) as caught:
        vfs.attributes("/projects/ALFA")
    assert caught.value.errno == errno.ENOENT


def test_a_protected_project_is_listed_but_refused(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab, user="outsider").vfs
    assert [name for name, _ in vfs.entries("/projects")] == ["DWI", "MESSY"]
    with pytest.raises(OSError) as caught:
        vfs.entries("/projects/MESSY/subjects")
    assert caught.value.errno == errno.EACCES
    with pytest.raises(OSError) as caught:
        vfs.entries("/projects/SECRET")
    assert caught.value.errno == errno.ENOENT


def test_looking_at_a_project_costs_a_handful_of_requests(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab).vfs
    lab.clear_log()
    for subject, _ in vfs.entries("/projects/ALFA/subjects"):
        for session, _ in vfs.entries(f"/projects/ALFA/subjects/{subject}"):
            vfs.entries(f"/projects/ALFA/subjects/{subject}/{session}")
    assert len(lab.requests()) <= 12 + 4  # four looks at single sessions settle doubts
    lab.clear_log()
    list(vfs.entries("/projects/ALFA/subjects"))
    assert lab.requests() == []
