"""The room `lists/`: views over the sessions of a list."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support import read, walk
from tests.vfs.conftest import Compose
from xnatfs.config import Limits
from xnatfs.core import Core
from xnatfs.demo import listings as demo_listings
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive, Experiment, Project
from xnatfs.demo.server import DemoServer
from xnatfs.errors import UsageError
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.tree import lists
from xnatfs.tree.lists import read_list
from xnatfs.vfs import Vfs

QUICK = Limits(cache_size=10**9, ttl=0.1, progress_deadline=5.0, listing_deadline=5.0)


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of the test's own, with a folder for lists."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "config/xnatfs/lists"
    folder.mkdir(parents=True)
    return folder


def names(vfs: Vfs, path: str) -> list[str]:
    return [name for name, _ in vfs.entries(path)]


def sessions(vfs: Vfs, name: str = "mine") -> list[str]:
    """The sessions of a list that have NIfTI images."""
    return sorted(names(vfs, f"/lists/{name}/by-scan-resource/NIFTI"))


def readme(vfs: Vfs, name: str = "mine") -> str:
    return read(vfs, f"/lists/{name}/README.txt").decode()


def given(
    compose: Compose, lab: DemoServer, folder: Path, text: str | bytes, name: str = "mine", **settings: object
) -> Core:
    """A mount with this list."""
    (folder / f"{name}.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    return compose(lab, **settings)


def test_there_is_no_room_without_a_list(lab: DemoServer, compose: Compose, config: Path) -> None:
    vfs = compose(lab).vfs
    assert "lists" not in names(vfs, "/")
    (config / "late.txt").write_text("sub001_MR1\n")
    vfs.forget()
    assert "lists" in names(vfs, "/") and names(vfs, "/lists") == ["late"]


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_ids_and_labels_across_projects(
    lab: DemoServer, compose: Compose, config: Path, profile: str
) -> None:
    lab.switches.profile = profile
    vfs = given(compose, lab, config, "sub001_MR1\nDEMO_E00003\nNORD_0002_20190509\nm05_names\n").vfs
    assert names(vfs, "/lists/mine")[0] == "README.txt"
    third = lab.archive.experiments["DEMO_E00003"].label
    assert sessions(vfs) == sorted(["sub001_MR1", third])
    assert names(vfs, "/lists/mine/by-scan-resource/nii") == ["NORD_0002_20190509"]
    assert set(names(vfs, "/lists/mine/by-scan-type")) >= {"T1_ALFA1", "MPRAGE"}
    flat = "/lists/mine/by-scan-type/T1_ALFA1/usable/NIFTI"
    images = [name for name in names(vfs, flat) if name.endswith(".nii.gz")]
    assert len(images) == 2
    at_home = {attributes.inode: (path, attributes) for path, attributes in walk(vfs, "/projects/ALFA")}
    for name, attributes in vfs.entries(flat):
        assert at_home[attributes.inode][1] == attributes
        assert read(vfs, f"{flat}/{name}") == read(vfs, at_home[attributes.inode][0])
    assert "4 sessions" in readme(vfs) and "no session" not in readme(vfs)


@pytest.mark.parametrize(
    "text",
    [
        b"sub001_MR1\r\nDEMO_E00003\r\n",
        b"\xef\xbb\xbfsub001_MR1\nDEMO_E00003",
        b"# cohort\n\n  sub001_MR1  \n# sub004_MR1\n\tDEMO_E00003\t\n\n",
        b"sub001_MR1\nsub001_MR1\nDEMO_E00003\nDEMO_E00001\nDEMO_E00003\n",
        b"\xef\xbb\xbf# from Excel\r\nsub001_MR1\r\n\r\nDEMO_E00003\r\n",
    ],
    ids=["CRLF", "BOM", "remarks and blanks", "twice", "all of it"],
)
def test_lists_as_people_write_them(lab: DemoServer, compose: Compose, config: Path, text: bytes) -> None:
    vfs = given(compose, lab, config, text).vfs
    assert len(sessions(vfs)) == 2
    assert "2 sessions" in readme(vfs)


def test_the_readme_names_what_is_unknown(lab: DemoServer, compose: Compose, config: Path) -> None:
    secret = next(one for one in lab.archive.experiments.values() if one.project == "SECRET")
    text = f"sub001_MR1\nnobody_MR9\n50%,x*\n{secret.id}\n{secret.label}\nñandú 1\n"
    vfs = given(compose, lab, config, text).vfs
    told = readme(vfs)
    assert told.startswith("Views over the 1 sessions of the list mine (6 names).")
    missing = told.split("no session you can read:\n")[1].split("\n")
    assert {"nobody_MR9", "50%,x*", secret.id, "ñandú 1"} <= set(missing) and "sub001_MR1" not in missing
    assert sessions(vfs) == ["sub001_MR1"]


def test_a_label_of_several_sessions_brings_all_of_them(
    lab: DemoServer, compose: Compose, config: Path
) -> None:
    """In MESSY a session is called DEMO_E00002, which is the id of one of ALFA."""
    vfs = given(compose, lab, config, "DEMO_E00002\n").vfs
    assert "2 sessions" in readme(vfs) and "belong to several sessions" in readme(vfs)
    assert len(sessions(vfs)) == 2


def test_the_mount_may_be_restricted_to_projects(lab: DemoServer, compose: Compose, config: Path) -> None:
    vfs = given(compose, lab, config, "sub001_MR1\nNORD_0002_20190509\n", projects=("NORD",)).vfs
    assert names(vfs, "/lists/mine/by-scan-resource/nii") == ["NORD_0002_20190509"]
    assert "NIFTI" not in names(vfs, "/lists/mine/by-scan-resource")
    assert "sub001_MR1" in readme(vfs).split("no session you can read:\n")[1]


def test_a_list_named_at_mount_time_wins(
    lab: DemoServer, compose: Compose, config: Path, tmp_path: Path
) -> None:
    named = tmp_path / "mine.txt"
    named.write_text("sub002_MR1\n")
    vfs = given(compose, lab, config, "sub001_MR1\n", lists=(named,)).vfs
    assert sessions(vfs) == ["sub002_MR1"]
    assert names(vfs, "/lists") == ["mine"]


def test_an_edited_list_shows(lab: DemoServer, compose: Compose, config: Path) -> None:
    vfs = given(compose, lab, config, "sub001_MR1\n", limits=QUICK).vfs
    assert sessions(vfs) == ["sub001_MR1"]
    (config / "mine.txt").write_text("sub002_MR1\nsub004_MR1\n")
    time.sleep(0.6)
    assert sessions(vfs) == ["sub002_MR1", "sub004_MR1"]
    flat = "/lists/mine/by-scan-type/T1_ALFA1/usable/NIFTI"
    assert {name.split("_")[0] for name in names(vfs, flat)} == {"sub002", "sub004"}
    before = os.stat(config / "mine.txt")
    (config / "mine.txt").write_text("sub001_MR1\nsub004_MR1\n")  # of equal size
    os.utime(config / "mine.txt", (before.st_atime, before.st_mtime + 5))
    time.sleep(2.2)
    assert {name.split("_")[0] for name in names(vfs, flat)} == {"sub001", "sub004"}
    assert "2 sessions" in readme(vfs)


def test_a_list_that_is_removed_is_gone(lab: DemoServer, compose: Compose, config: Path) -> None:
    vfs = given(compose, lab, config, "sub001_MR1\n", limits=QUICK).vfs
    assert sessions(vfs) == ["sub001_MR1"]
    (config / "mine.txt").unlink()
    time.sleep(0.6)
    assert "lists" not in names(vfs, "/")
    with pytest.raises(OSError) as caught:
        vfs.entries("/lists/mine/by-scan-type")
    assert caught.value.errno == errno.ENOENT


def test_an_empty_list_has_empty_views(lab: DemoServer, compose: Compose, config: Path) -> None:
    vfs = given(compose, lab, config, "# nobody yet\n").vfs
    assert names(vfs, "/lists/mine/by-scan-type") == [] == names(vfs, "/lists/mine/by-resource")
    assert "0 sessions" in readme(vfs)


def test_what_is_no_list(lab: DemoServer, compose: Compose, config: Path, tmp_path: Path) -> None:
    for data in (b"\xff\xfe\x00 sub\n", b"\x89PNG\r\n\x1a\n\x00\x00\xff"):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(UsageError):
            read_list(tmp_path / "x")
    with pytest.raises(UsageError):
        read_list(tmp_path / "not there")
    vfs = given(compose, lab, config, b"\xff\xfe\x00", limits=QUICK).vfs
    with pytest.raises(OSError) as caught:
        vfs.entries("/lists/mine/by-scan-type")
    assert caught.value.errno == errno.EIO
    assert "cannot be looked up" in readme(vfs)
    assert "README.txt" in names(vfs, "/lists/mine")


def test_names_are_looked_up_once(lab: DemoServer, compose: Compose, config: Path) -> None:
    vfs = given(compose, lab, config, "sub001_MR1\nDEMO_E00003\n").vfs
    sessions(vfs)
    list(walk(vfs, "/lists/mine/by-scan-type"))
    lab.clear_log()
    sessions(vfs)
    readme(vfs)
    list(walk(vfs, "/lists/mine/by-scan-type"))
    assert lab.requests() == []


def test_the_server_goes_away(lab: DemoServer, compose: Compose, config: Path) -> None:
    vfs = given(compose, lab, config, "sub001_MR1\n", limits=QUICK).vfs
    assert sessions(vfs) == ["sub001_MR1"]
    flat = "/lists/mine/by-scan-type/T1_ALFA1/usable/NIFTI"
    before = names(vfs, flat)
    lab.switches.refuse_connections = True
    time.sleep(0.6)
    assert sessions(vfs) == ["sub001_MR1"] and names(vfs, flat) == before
    (config / "mine.txt").write_text("sub001_MR1\nsub002_MR1\n")
    time.sleep(0.6)
    with pytest.raises(OSError):
        sessions(vfs)
    time.sleep(2.1)
    assert "README.txt" in names(vfs, "/lists/mine") and "cannot be looked up" in readme(vfs)
    lab.switches.refuse_connections = False
    time.sleep(2.1)
    assert len(sessions(vfs)) == 2 and "2 sessions" in readme(vfs)


def test_long_lists_are_asked_for_in_pieces(lab: DemoServer, compose: Compose, config: Path) -> None:
    text = "".join(f"unknown_{number:05d}\n" for number in range(950)) + "sub001_MR1\n"
    vfs = given(compose, lab, config, text).vfs
    lab.clear_log()
    assert sessions(vfs) == ["sub001_MR1"]
    assert len(lab.requests(r"/data/experiments\?.*(unknown|sub001)")) == 20
    assert "950 names match no session" in readme(vfs)


class Across:
    """Projects MINE and PLAIN of `demo`; THEIRS, which is not his; CLOSED, protected and not his: listed, but
    no more.
    """

    def __init__(self) -> None:
        archive = Archive(site="T")
        make = Maker(archive, datetime(2024, 1, 8, 9, 15))
        make.user("demo")
        self.closed = make.project("CLOSED", "CLOSED", access="protected")
        mine, theirs = make.project("MINE", "MINE", members=["demo"]), make.project("THEIRS", "THEIRS")
        self.plain = make.project("PLAIN", "PLAIN", members=["demo"])
        self.own, self.shared = self.session(make, mine, "own"), self.session(make, theirs, "at_home")
        self.hidden = self.session(make, self.closed, "hidden")
        for one in (archive.subjects[self.shared.subject_id], self.shared):
            one.shares["PLAIN"] = "as_guest"
        self.server = DemoServer(archive)

    @staticmethod
    def session(make: Maker, project: Project, label: str) -> Experiment:
        session = make.experiment(make.subject(project, f"subject of {label}"), label, date="2024-01-08")
        make.resource(make.scan(session, "1", "T1"), "NIFTI", {"t1.nii": label.encode()})
        return session


@pytest.fixture
def across() -> Iterator[Across]:
    made = Across()
    with made.server:
        yield made


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_a_project_that_may_not_be_read_holds_nothing_up(
    across: Across, compose: Compose, config: Path, profile: str
) -> None:
    across.server.switches.profile = profile
    vfs = given(compose, across.server, config, f"own\nmisspelt\n{across.hidden.id}\nhidden\n").vfs
    across.server.clear_log()
    assert sessions(vfs) == ["own"]
    told = readme(vfs)
    assert told.split("\n\n")[1].splitlines() == [
        "3 names match no session you can read:",
        "misspelt",
        across.hidden.id,
        "hidden",
    ]
    assert "could not be searched:\nCLOSED: this user may not read this" in told and "Permission" not in told
    asked = [one.target for one in across.server.requests("/projects/(CLOSED|PLAIN)/")]
    assert len(asked) == 2 and all(
        "/experiments?" in one for one in asked
    )  # one each, whatever the number of names


@pytest.mark.parametrize("name", ["as_guest", "at_home", "id"])
def test_a_session_is_found_where_it_is_shared(
    across: Across, compose: Compose, config: Path, name: str
) -> None:
    """By the label it has there; by its id, or the label it has at home, though the project it is at home in
    is not this user's.
    """
    name = across.shared.id if name == "id" else name
    vfs = given(compose, across.server, config, f"own\n{name}\n").vfs
    assert sessions(vfs) == ["as_guest", "own"]
    assert "no session" not in readme(vfs)
    files = sorted(read(vfs, path) for path, _ in walk(vfs, "/lists/mine/by-scan-resource/NIFTI"))
    assert files == [b"at_home", b"own"]


def test_a_server_that_ignores_the_filter_shows_no_more(
    across: Across, compose: Compose, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_listings, "_filters", lambda *_, **__: [])
    vfs = given(compose, across.server, config, "as_guest\n").vfs
    assert sessions(vfs) == ["as_guest"]
    assert readme(vfs).startswith("Views over the 1 sessions of the list mine (1 names).")


def test_what_the_search_over_all_projects_says_is_checked(
    across: Across, compose: Compose, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that a session of another project is of one of this user's, and lacks one that he can read."""
    phantom = across.hidden.id, "hidden", "MINE"
    monkeypatch.setattr(
        ListingRequests, "find_experiments", lambda *_: [phantom, (across.shared.id, "at_home", "PLAIN")]
    )
    vfs = given(compose, across.server, config, "own\nhidden\nat_home\n").vfs
    assert sessions(vfs) == ["as_guest", "own"]
    assert readme(vfs).split("no session you can read:\n")[1].splitlines()[0] == "hidden"


def test_a_server_in_trouble_is_no_missing_name(across: Across, compose: Compose, config: Path) -> None:
    across.server.switches.match, across.server.switches.fail_status = "/projects/PLAIN/experiments", 500
    across.server.switches.fail_next = -1
    vfs = given(compose, across.server, config, "own\nas_guest\n", limits=QUICK).vfs
    with pytest.raises(OSError) as caught:
        sessions(vfs)
    assert caught.value.errno == errno.EIO and "cannot be looked up" in readme(vfs)
    across.server.switches.fail_next = 0
    time.sleep(2.1)
    assert sessions(vfs) == ["as_guest", "own"]


def test_a_listed_project_that_is_not_there_takes_nothing_away(
    across: Across, compose: Compose, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """404, as a server without its database answers; asked again after a minute, not after ten."""
    mounted = given(compose, across.server, config, "own\nas_guest\nmisspelt\n")
    vfs = mounted.vfs
    assert sessions(vfs) == ["as_guest", "own"]
    across.server.switches.match, across.server.switches.fail_status = "/projects/PLAIN/experiments", 404
    across.server.switches.fail_next = -1
    projects = mounted.listing_service.projects
    # It would be asked again by itself, too: not what is looked at here.
    projects.snapshots.expire("PLAIN")
    monkeypatch.setattr(projects, "get", lambda project: projects.snapshots.latest(project).value)
    monkeypatch.setattr(lists, "_LOOKUP_TTL_S", 0.0)
    monkeypatch.setattr(lists, "_DOUBTFUL_TTL_S", 0.0)
    across.server.clear_log()
    assert sessions(vfs) == ["as_guest", "own"]
    assert across.server.requests("/projects/PLAIN/experiments")
    assert "1 names match no session" in readme(vfs)


def test_names_that_need_spelling(lab: DemoServer, compose: Compose, config: Path) -> None:
    vfs = given(compose, lab, config, "sub001_MR1\n", name="my list (1) 50%41").vfs
    (name,) = names(vfs, "/lists")
    assert len(sessions(vfs, name)) == 1


def test_tables_over_a_list_have_the_rows_of_its_sessions_from_all_their_projects(
    lab: DemoServer, compose: Compose, config: Path
) -> None:
    vfs = given(compose, lab, config, "DEMO_E00001\r\n007_MR1\r\nP01_MR1\r\nnope\r\n").vfs
    rows = read(vfs, "/lists/mine/tables/freesurfer7/aseg.csv").decode().splitlines()
    wanted = []
    for project, ids in (("ALFA", ("DEMO_E00001", "DEMO_E00008")), ("PIPES", ("DEMO_E00036",))):
        theirs = read(vfs, f"/tables/{project}/freesurfer7/aseg.csv").decode().splitlines()
        assert theirs[0] == rows[0]
        wanted += [row for row in theirs[1:] if row.split(",")[0] in ids]
    assert sorted(rows[1:]) == sorted(wanted)
    assert [row.split(",")[0] for row in dict.fromkeys(row.split(",")[0] for row in rows[1:])] == [
        "DEMO_E00008",
        "DEMO_E00036",
        "DEMO_E00001",
    ]
    wide = read(vfs, "/lists/mine/tables/freesurfer7/aseg_wide.csv").decode().splitlines()
    assert len(wide) == 1 + 3
    scans = read(vfs, "/lists/mine/tables/scans.csv").decode().splitlines()
    assert {row.split(",")[0] for row in scans[1:]} == {"DEMO_E00001", "DEMO_E00008", "DEMO_E00036"}
    # A pipeline that only one of the projects has: the others' sessions are in the list of problems.
    problems = read(vfs, "/lists/mine/tables/qsmxt/stats.problems.csv").decode()
    assert "DEMO_E00001" in problems and "has no resource QSMXT" in problems
