"""The room `views/`: the files of a project by scan type, by description and by resource, against the
truth.
"""

from __future__ import annotations

import errno
import json
import re
import stat
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.mount.spelling import Spelling
from tests.support import md5, read, until, walk
from tests.vfs.conftest import Compose
from xnatfs.concurrency.waiting import interruptible
from xnatfs.config import Limits
from xnatfs.core import Core
from xnatfs.demo.data import build
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.data.messy import ODD_LABEL, ODD_TYPE
from xnatfs.demo.data.truth import TrueFile, files
from xnatfs.demo.model import Archive, Experiment, Scan
from xnatfs.demo.server import DemoServer
from xnatfs.tree.names import spell_label
from xnatfs.vfs import Vfs

LEVELS = {
    "by-scan-type": {"scan"},
    "by-description": {"scan"},
    "by-resource": {"session"},
    "by-scan-resource": {"scan"},
    "by-assessor-resource": {"assessor"},
}


@pytest.fixture(params=["full", "proven"])
def mounted(request: pytest.FixtureRequest, lab: DemoServer, compose: Compose) -> Core:
    lab.switches.profile = request.param
    return compose(lab)


def names(vfs: Vfs, path: str) -> list[str]:
    return [name for name, _ in vfs.entries(path)]


def refused(vfs: Vfs, path: str) -> int | None:
    with pytest.raises(OSError) as caught:
        vfs.entries(path)
    return caught.value.errno


def listings(server: DemoServer) -> int:
    """Requests so far that are not for contents."""
    return len(server.requests()) - contents(server)


def contents(server: DemoServer) -> int:
    return len(server.requests(r"^GET .*/files/[^?]")) + len(server.requests(r"format=zip"))


def by_inode(mounted: Core, lab: DemoServer, project: str) -> dict[int, TrueFile]:
    """The true files of a project by the inode numbers they have in `projects/`."""
    people = Spelling(lab.archive, files(lab.archive, project, "demo")).people()
    list(walk(mounted.vfs, f"/projects/{project}"))
    return {
        mounted.vfs.attributes(f"/projects/{project}/{path}").inode: file for path, file in people.items()
    }


# --- all of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("project", READABLE)
def test_every_file_of_a_level_is_in_the_view_of_that_level_once(
    mounted: Core, lab: DemoServer, project: str
) -> None:
    """Looked at before `projects/` was: a view must not need what others listed."""
    shown: dict[str, list[int]] = {}
    for view in LEVELS:
        found = [
            attributes.inode
            for path, attributes in walk(mounted.vfs, f"/views/{project}/{view}")
            if ("/usable/" not in path and not path.endswith("README.txt"))
            or view not in ("by-scan-type", "by-description")
        ]
        shown[view] = found
    truth = by_inode(mounted, lab, project)
    for view, levels in LEVELS.items():
        expected = {(file.resource_id, file.path) for file in truth.values() if file.kind in levels}
        assert {(truth[one].resource_id, truth[one].path) for one in shown[view]} == expected, view
        assert len(shown[view]) == len(expected), view


@pytest.mark.parametrize("project", ["ALFA", "MESSY", "NORD"])
def test_a_file_is_the_same_node_on_every_path(mounted: Core, lab: DemoServer, project: str) -> None:
    people = Spelling(lab.archive, files(lab.archive, project, "demo")).people()
    at_home = {
        attributes.inode: (path, attributes) for path, attributes in walk(mounted.vfs, f"/projects/{project}")
    }
    assert len(at_home) == len(people)
    seen = 0
    for view in LEVELS:
        for path, attributes in walk(mounted.vfs, f"/views/{project}/{view}"):
            if path.endswith("README.txt") and attributes.inode not in at_home:
                continue
            seen += 1
            home, there = at_home[attributes.inode]
            assert attributes == there
            assert mounted.vfs.attributes(path) == there
            if seen % 7 == 0:
                assert sorted(mounted.vfs.xattrs(path)) == sorted(mounted.vfs.xattrs(home))
                assert mounted.vfs.xattr(path, "user.xnat.uri") == mounted.vfs.xattr(home, "user.xnat.uri")
                assert mounted.vfs.xattr(path, "user.xnat.project") == project.encode()
    assert seen > 30


def test_one_download_whatever_the_path(mounted: Core, lab: DemoServer) -> None:
    flat = "/views/ALFA/by-scan-type/T1_ALFA1/usable/NIFTI"
    name = next(one for one in names(mounted.vfs, flat) if one.endswith(".nii.gz"))
    data = read(mounted.vfs, f"{flat}/{name}")
    inode = mounted.vfs.attributes(f"{flat}/{name}").inode
    lab.clear_log()
    places = [
        path for path, attributes in walk(mounted.vfs, "/projects/ALFA/subjects") if attributes.inode == inode
    ]
    places += [
        path
        for path, attributes in walk(mounted.vfs, "/views/ALFA/by-description")
        if attributes.inode == inode
    ]
    places += [
        path
        for path, attributes in walk(mounted.vfs, "/views/ALFA/by-scan-resource")
        if attributes.inode == inode
    ]
    assert len(places) == 4  # projects/, by-description in usable and in all, by-scan-resource
    for path in places:
        assert read(mounted.vfs, path) == data
        assert mounted.vfs.xattr(path, "user.xnat.cached") == b"yes"
    assert contents(lab) == 0


# --- names --------------------------------------------------------------------------------------------------


class Study:
    """A server with a project P whose sessions a test makes."""

    def __init__(self) -> None:
        self.archive = Archive(site="T")
        self.make = Maker(self.archive, datetime(2024, 1, 8, 9, 15))
        self.make.user("demo")
        self.project = self.make.project("P", "P", members=["demo"])
        self.server = DemoServer(self.archive)

    def session(self, subject: str = "s", label: str = "S") -> Experiment:
        found = next((one for one in self.archive.subjects.values() if one.label == subject), None)
        return self.make.experiment(
            found or self.make.subject(self.project, subject), label, date="2024-01-08"
        )

    def scan(
        self,
        session: Experiment,
        id: str = "1",
        type: str = "T1",
        *paths: str,
        label: str = "NIFTI",
        quality: str = "usable",
    ) -> Scan:
        scan = self.make.scan(session, id, type, quality=quality)
        self.make.resource(
            scan,
            label,
            {path: f"{session.id}/{id}/{label}/{path}".encode() for path in paths or ("x.nii.gz",)},
        )
        return scan


@pytest.fixture
def study() -> Iterator[Study]:
    made = Study()
    with made.server:
        yield made


FLAT = "/views/P/by-scan-type/T1/usable/NIFTI"


def test_names_are_those_of_bx_and_nothing_is_left_out(study: Study, compose: Compose) -> None:
    session = study.session()
    study.scan(session, "1", "T1", "a.nii.gz", "a.json", "a.bval", "a.bvec", "noext")
    study.scan(session, "2", "T1", "e1.nii.gz", "e2.nii.gz", "e1.json", "e2.json", "only.bval")
    study.scan(session, "3", "T1", "top.nii.gz", "derived/top.nii.gz", "derived/more/mask.nii")
    study.scan(session, "4", "T1", "image.nii")
    study.scan(session, "5", "T1", "a/b.txt", "a_b.txt", "c.txt")  # a/b and a_b would have one name
    vfs = compose(study.server).vfs
    found = {name: read(vfs, f"{FLAT}/{name}").decode().partition("NIFTI/")[2] for name in names(vfs, FLAT)}
    base = f"s_S_{{}}_{session.id}"
    one, two, three, four, five = (base.format(number) for number in "12345")
    assert {name: path for name, path in found.items() if not name.startswith(five)} == {
        f"{one}.nii.gz": "a.nii.gz",
        f"{one}.json": "a.json",
        f"{one}.bval": "a.bval",
        f"{one}.bvec": "a.bvec",
        one: "noext",
        f"{two}_e1.nii.gz": "e1.nii.gz",
        f"{two}_e2.nii.gz": "e2.nii.gz",
        f"{two}_e1.json": "e1.json",
        f"{two}_e2.json": "e2.json",
        f"{two}.bval": "only.bval",
        f"{three}.nii.gz": "top.nii.gz",
        f"{three}_derived_top.nii.gz": "derived/top.nii.gz",
        f"{three}_derived_more_mask.nii": "derived/more/mask.nii",
        f"{four}.nii": "image.nii",
    }
    assert sorted(path for name, path in found.items() if name.startswith(five)) == [
        "a/b.txt",
        "a_b.txt",
        "c.txt",
    ]
    assert all(name.endswith(".txt") for name in found if name.startswith(five))


def test_two_resources_of_one_label_keep_their_extensions(study: Study, compose: Compose) -> None:
    session = study.session()
    scan = study.scan(session, "1", "T1", "a.nii.gz", "a.json")
    second = study.make.resource(scan, "NIFTI", {"b.nii.gz": b"the second"})
    vfs = compose(study.server).vfs
    base = f"s_S_1_{session.id}"
    list(walk(vfs, "/projects/P"))
    assert sorted(names(vfs, FLAT)) == sorted(
        [f"{base}.nii.gz", f"{base}.json", f"{base}_{second.id}.nii.gz"]
    )
    assert read(vfs, f"{FLAT}/{base}_{second.id}.nii.gz") == b"the second"


def test_a_name_that_is_too_long_keeps_its_extension(study: Study, compose: Compose) -> None:
    for number in (1, 2):
        study.scan(study.session("é" * 70, f"{'n' * 150}{number}"), "1", "T1", "a.nii.gz", "a.json")
    vfs = compose(study.server).vfs
    found = names(vfs, FLAT)
    assert len(found) == 4 and all(len(name.encode()) <= 255 for name in found)
    assert sorted(name.rpartition(".")[2] for name in found) == ["gz", "gz", "json", "json"]
    assert len({read(vfs, f"{FLAT}/{name}") for name in found}) == 4


def test_types_stay_apart_whatever_they_differ_by(study: Study, compose: Compose) -> None:
    types = [
        "T1",
        "t1",
        "T1 ",
        "T1_",
        "T1-",
        "T1/",
        "T1%2F",
        "T1 w",
        "T1(w)",
        "",
        "(none)",
        ".",
        "..",
        ".git",
        "README.txt",
        "é" * 200,
    ]
    session = study.session()
    for number, type in enumerate(types, 1):
        study.scan(session, str(number), type)
    vfs = compose(study.server).vfs
    for view in ("by-scan-type", "by-description"):
        found = names(vfs, f"/views/P/{view}")
        assert len(found) == len(types)
        assert {spell_label(type) for type in types if type} <= set(found)
        for name in found:
            assert len(names(vfs, f"/views/P/{view}/{name}/usable/NIFTI")) == 1, name
    assert (
        "_T1%2F" not in found
        and read(vfs, f"/views/P/by-scan-type/T1%2F/all/NIFTI/s_S_6_{session.id}.nii.gz")
        .decode()
        .split("/")[1]
        == "6"
    )
    assert read(vfs, f"/views/P/by-scan-type/(none)/all/NIFTI/s_S_10_{session.id}.nii.gz")


def test_quality_decides_where_a_scan_is_and_the_readme_counts(study: Study, compose: Compose) -> None:
    session = study.session()
    for number, quality in enumerate(["usable", "usable", "questionable", "unusable", "", "Usable"], 1):
        study.scan(session, str(number), "T1", quality=quality)
    vfs = compose(study.server).vfs
    folder = "/views/P/by-scan-type/T1"
    assert names(vfs, folder) == ["README.txt", "usable", "all"]
    assert len(names(vfs, f"{folder}/usable/NIFTI")) == 2
    assert len(names(vfs, f"{folder}/all/NIFTI")) == 6
    text = read(vfs, f"{folder}/README.txt").decode()
    assert "'T1' of project P: 6 in all, 2 of quality" in text and "1 without a quality" in text
    assert vfs.attributes(f"{folder}/README.txt").size == len(text.encode())


def test_other_resources_are_a_folder_a_scan(mounted: Core, lab: DemoServer) -> None:
    vfs = mounted.vfs
    folder = "/views/ALFA/by-scan-type/T1_ALFA1/all"
    assert set(names(vfs, folder)) == {"DICOM", "NIFTI", "NIFTI_PLAIN"}
    truth = [
        one
        for one in files(lab.archive, "ALFA", "demo")
        if one.scan_type == "T1_ALFA1" and one.resource == "DICOM"
    ]
    expected = {f"{one.subject}_{one.session}_{one.scan}-T1_ALFA1_{one.session_id}" for one in truth}
    assert set(names(vfs, f"{folder}/DICOM")) == expected
    one = truth[0]
    assert (
        md5(
            read(
                vfs,
                f"{folder}/DICOM/{one.subject}_{one.session}_{one.scan}-T1_ALFA1_{one.session_id}/{one.path}",
            )
        )
        == one.digest
    )


def test_labels_with_awkward_characters(mounted: Core, lab: DemoServer) -> None:
    vfs = mounted.vfs
    flat = "/views/MESSY/by-scan-type/T1/all/NIFTI"
    truth = [
        one
        for one in files(lab.archive, "MESSY", "demo")
        if one.scan_type == "T1" and one.resource == "NIFTI" and not one.hostile
    ]
    assert len(names(vfs, flat)) == len(truth)
    found = sorted(md5(read(vfs, f"{flat}/{name}")) for name in names(vfs, flat))
    assert found == sorted(one.digest for one in truth)
    odd = next(one for one in truth if one.session == ODD_LABEL)
    plain = f"{odd.subject}_{ODD_LABEL}_1_{odd.session_id}.txt"
    assert spell_label(plain) in names(vfs, flat)
    assert spell_label(ODD_TYPE) in names(vfs, "/views/MESSY/by-scan-type")
    assert "(none)" in names(vfs, "/views/MESSY/by-scan-type")
    by_session = names(vfs, "/views/MESSY/by-resource/NOTES")
    assert {"%2E", "%2E%2E", spell_label(ODD_LABEL), "DEMO_E00002", "RESOURCES"} <= set(by_session)


def test_a_shared_session_is_under_the_labels_of_each_project(mounted: Core) -> None:
    vfs = mounted.vfs
    there = names(vfs, "/views/MESSY/by-scan-type/T1_ALFA1/usable/NIFTI")
    assert [name.split("_DEMO_")[0] for name in there if name.endswith(".nii.gz")] == [
        "sub001_borrowed_MR1_2"
    ]
    here = names(vfs, "/views/ALFA/by-scan-type/T1_ALFA1/usable/NIFTI")
    assert any(name.startswith("sub001_sub001_MR1_2_") for name in here)
    assert "borrowed_MR1" in names(vfs, "/views/MESSY/by-resource/FREESURFER6")
    one = vfs.attributes(f"/views/MESSY/by-scan-type/T1_ALFA1/usable/NIFTI/{there[0]}")
    other = vfs.attributes(
        "/views/ALFA/by-scan-type/T1_ALFA1/usable/NIFTI/" + there[0].replace("borrowed", "sub001")
    )
    assert (one.inode, one.size, one.mtime) == (other.inode, other.size, other.mtime)


def test_resources_of_non_imaging_experiments_and_of_assessors(mounted: Core) -> None:
    vfs = mounted.vfs
    assert names(vfs, "/views/ALFA/by-resource/FORMS") == ["sub005_NP1"]
    assert read(vfs, "/views/ALFA/by-resource/FORMS/sub005_NP1/scan/form1.txt") == b"signed\n"
    assert set(names(vfs, "/views/ALFA/by-assessor-resource/DATA")) == {"sub001_MR1", "sub003_MR1"}
    assert names(vfs, "/views/ALFA/by-assessor-resource/DATA/sub001_MR1") == ["sub001_MR1_freesurfer"]
    both = "/views/MESSY/by-assessor-resource/DATA/m04_MR1"
    assert {
        read(vfs, f"{both}/{name}/which.txt") for name in names(vfs, both) if name.startswith("m04_both")
    } == {
        b"in\n",
        b"out\n",
        b"plain\n",
    }
    assert "2-T1_ALFA1" in names(vfs, "/views/ALFA/by-scan-resource/NIFTI/sub001_MR1")


def test_a_project_without_scans_has_empty_views(study: Study, compose: Compose) -> None:
    study.make.experiment(study.make.subject(study.project, "s"), "V", "cnda:neuropsychData")
    vfs = compose(study.server).vfs
    assert names(vfs, "/views/P") == [*LEVELS, "bids", "nifti"]
    assert [names(vfs, f"/views/P/{view}") for view in LEVELS] == [[]] * len(LEVELS)


def test_a_type_without_resources_and_a_resource_without_files(study: Study, compose: Compose) -> None:
    session = study.session()
    study.make.scan(session, "1", "T1")
    empty = study.make.scan(session, "2", "T2")
    study.make.resource(empty, "NIFTI")
    vfs = compose(study.server).vfs
    assert names(vfs, "/views/P/by-scan-type/T1/usable") == []
    assert names(vfs, "/views/P/by-scan-type/T2/usable/NIFTI") == []


def test_who_may_not_see_a_project_has_no_views_of_it(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab).vfs
    assert "SECRET" not in names(vfs, "/views")
    assert refused(vfs, "/views/SECRET") == refused(vfs, "/views/SECRET/by-scan-type") == errno.ENOENT
    other = compose(lab, "other", user="outsider").vfs
    assert names(other, "/views") == ["DWI", "MESSY"]
    assert refused(other, "/views/MESSY") == refused(other, "/views/MESSY/by-scan-type") == errno.EACCES
    assert names(compose(lab, "third", projects=("DWI",)).vfs, "/views") == ["DWI"]


def test_a_project_that_is_closed_while_mounted_loses_its_views(study: Study, compose: Compose) -> None:
    study.scan(study.session())
    mounted = compose(study.server, limits=Limits(cache_size=10**9, ttl=0.1))
    name = names(mounted.vfs, FLAT)[0]
    assert read(mounted.vfs, f"{FLAT}/{name}")
    study.server.call(lambda: study.project.members.clear())
    mounted.vfs.forget()
    time.sleep(0.2)
    assert "P" not in names(mounted.vfs, "/views")
    with pytest.raises(OSError):
        read(mounted.vfs, f"{FLAT}/{name}")


# --- requests -----------------------------------------------------------------------------------------------


def test_a_type_that_is_not_there_costs_no_request(mounted: Core, lab: DemoServer) -> None:
    vfs = mounted.vfs
    names(vfs, "/views/ALFA/by-scan-type")
    lab.clear_log()
    for path in (
        "by-scan-type/T9",
        "by-description/T9",
        "by-scan-type/T1_ALFA1/usable/NOTHING",
        "by-scan-type/t1_alfa1",
        "by-thing",
    ):
        assert refused(vfs, f"/views/ALFA/{path}") == errno.ENOENT
    if lab.switches.profile == "proven":  # what resources a scan has costs a request a session there
        assert not lab.requests("/files")
    else:
        assert lab.requests() == []


def test_types_are_listed_without_a_request_a_session(mounted: Core, lab: DemoServer) -> None:
    names(mounted.vfs, "/projects/ALFA/subjects")
    lab.clear_log()
    for view in ("by-scan-type", "by-description"):
        for name in names(mounted.vfs, f"/views/ALFA/{view}"):
            assert b"in all" in read(mounted.vfs, f"/views/ALFA/{view}/{name}/README.txt")
    assert lab.requests() == []


def test_a_cold_flat_listing_costs_one_request_a_resource_in_parallel(compose: Compose) -> None:
    archive = build("scale", sessions=40, scans=2, files=1, file_size=1000, resource="NIFTI")
    with DemoServer(archive) as server:
        mounted = compose(server)
        flat = "/views/SCALE/by-scan-type/TYPE1/usable/NIFTI"
        assert refused(mounted.vfs, "/views/SCALE/by-scan-type/none") == errno.ENOENT
        server.clear_log()
        server.switches.latency_ms = 150
        begin = time.monotonic()
        found = names(mounted.vfs, flat)
        assert len(found) == 40
        assert time.monotonic() - begin < 40 * 0.15  # one after the other would take longer
        server.switches.latency_ms = 0
        assert len(server.requests()) == len(server.requests(r"/files\?")) == 40
        for name in found:
            mounted.vfs.attributes(f"{flat}/{name}")
        assert names(mounted.vfs, "/views/SCALE/by-scan-type/TYPE1/all/NIFTI") == found
        assert len(server.requests()) == 40
        for name in found:
            assert len(read(mounted.vfs, f"{flat}/{name}")) == 1000
        assert len(server.requests()) == 80 and contents(server) == 40


def test_what_desktops_probe_for_lists_nothing(compose: Compose, study: Study) -> None:
    study.scan(study.session())
    vfs = compose(study.server).vfs
    assert names(vfs, "/views/P/by-scan-type/T1/usable") == ["NIFTI"]
    study.server.clear_log()
    for name in (".git", ".hidden", "desktop.ini", "._x", ".Trash-1000"):
        with pytest.raises(OSError) as caught:
            vfs.attributes(f"{FLAT}/{name}")
        assert caught.value.errno == errno.ENOENT
    assert study.server.requests() == []


def test_where_a_session_is_listed_its_resources_are_not_asked_for_again(
    compose: Compose, study: Study
) -> None:
    study.scan(study.session())
    mounted = compose(study.server)
    list(walk(mounted.vfs, "/projects/P"))
    study.server.clear_log()
    assert len(names(mounted.vfs, FLAT)) == 1
    assert study.server.requests() == []


# --- while things change ------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["full", "proven"])
@pytest.mark.parametrize("how", ["refresh", "ageing"])
def test_new_changed_and_removed_scans_show(study: Study, compose: Compose, profile: str, how: str) -> None:
    study.server.switches.profile = profile
    session = study.session()
    study.scan(session, "1", "T1")
    kept = study.scan(session, "2", "T1")
    study.scan(study.session("t", "T"), "1", "T1", label="DICOM")
    mounted = compose(study.server, limits=Limits(cache_size=10**9, ttl=0.1 if how == "ageing" else 3600.0))
    vfs = mounted.vfs
    dicom = "/views/P/by-scan-type/T1/usable/DICOM"

    def look() -> list[str]:
        if how == "refresh":
            mounted.listing_service.refresh()
            vfs.forget()
        else:
            time.sleep(0.7)
        return sorted(name.split("_")[2] for name in names(vfs, FLAT))

    assert look() == ["1", "2"] and len(names(vfs, dicom)) == 1

    def change() -> None:
        study.scan(session, "3", "T1")
        study.scan(session, "4", "T1", label="DICOM")
        study.scan(session, "5", "T2")

    study.server.call(change)
    assert look() == ["1", "2", "3"]
    assert len(names(vfs, dicom)) == 2 and "T2" in names(vfs, "/views/P/by-scan-type")
    assert "5 in all" in read(vfs, "/views/P/by-scan-type/T1/README.txt").decode()

    def remove() -> None:
        session.scans[:] = [one for one in session.scans if one.id in ("2", "3")]
        kept.quality = "unusable"
        study.archive.touch(session)

    study.server.call(remove)
    assert look() == ["3"]
    assert len(names(vfs, dicom)) == 1 and names(vfs, "/views/P/by-scan-type") == ["T1"]
    assert "3 in all, 2 of quality" in read(vfs, "/views/P/by-scan-type/T1/README.txt").decode()

    def add_file() -> None:
        resource = kept.resources[0]
        study.make.add(resource, {"late.json": b"{}"})
        study.archive.touch(session)

    study.server.call(add_file)
    look()
    assert any(name.endswith(".json") for name in names(vfs, "/views/P/by-scan-type/T1/all/NIFTI"))


def test_a_listing_that_fails_half_way_is_an_error_and_never_short(study: Study, compose: Compose) -> None:
    for number in range(12):
        study.scan(study.session(f"s{number:02d}", f"S{number:02d}"))
    mounted = compose(study.server)
    names(mounted.vfs, "/views/P/by-scan-type/T1/usable")
    broken = sorted(study.archive.experiments)[7]
    study.server.switches.match = f"/{broken}/"
    study.server.switches.fail_next = -1
    study.server.switches.fail_status = 500
    for _ in range(2):
        assert refused(mounted.vfs, FLAT) == errno.EIO
        with pytest.raises(OSError):
            mounted.vfs.attributes(f"{FLAT}/s00_S00_1_T_E00001.nii.gz")
    assert read(mounted.vfs, "/.xnatfs/errors.txt") != b"no errors\n"
    study.server.switches.fail_next = 0
    assert len(names(mounted.vfs, FLAT)) == 12


def test_a_resource_that_went_meanwhile_makes_no_short_folder(study: Study, compose: Compose) -> None:
    study.scan(study.session("s1", "S1"))
    study.scan(study.session("s2", "S2"))
    mounted = compose(study.server)
    names(mounted.vfs, "/views/P/by-scan-type/T1/usable")
    study.server.call(lambda: next(iter(study.archive.experiments.values())).scans.clear())
    assert refused(mounted.vfs, FLAT) == errno.EIO


def test_a_cold_listing_shows_its_progress_and_can_be_interrupted(compose: Compose) -> None:
    archive = build("scale", sessions=300, scans=1, files=1, file_size=1000, resource="NIFTI", digests=False)
    flat = "/views/SCALE/by-scan-type/TYPE1/usable/NIFTI"
    with DemoServer(archive) as server:
        mounted = compose(server)
        names(mounted.vfs, "/views/SCALE/by-scan-type/TYPE1/usable")
        server.switches.latency_ms = 100
        server.clear_log()
        stop = threading.Event()
        outcome: list[object] = []

        def look() -> None:
            try:
                with interruptible(stop.is_set):
                    outcome.append(names(mounted.vfs, flat))
            except OSError as error:
                outcome.append(error.errno)

        thread = threading.Thread(target=look)
        thread.start()
        until(lambda: len(server.requests()) > 20)
        report = json.loads(read(mounted.vfs, "/.xnatfs/status.json"))["listing"]
        assert [one["total"] for one in report] == [300] and 0 < report[0]["done"] < 300
        assert "NIFTI" in report[0]["what"]
        stop.set()
        thread.join(5)
        assert not thread.is_alive() and outcome == [errno.EINTR]
        time.sleep(1.5)
        assert len(server.requests()) < 200  # what was begun comes to its end, no more
        assert mounted.sources.work == []
        before = len(server.requests())
        server.switches.latency_ms = 0
        assert len(names(mounted.vfs, flat)) == 300
        assert before < len(server.requests()) <= 301  # what had come was kept


def test_the_inode_numbers_and_order_are_the_same_in_the_next_mount(
    lab: DemoServer, compose: Compose
) -> None:
    first = [(path, one.inode) for path, one in walk(compose(lab).vfs, "/views/ALFA")]
    assert [(path, one.inode) for path, one in walk(compose(lab, "other").vfs, "/views/ALFA")] == first


def test_folders_have_numbers_of_their_own(mounted: Core) -> None:
    seen: dict[int, list[str]] = defaultdict(list)

    def note(path: str) -> None:
        for name, attributes in mounted.vfs.entries(path):
            if stat.S_ISDIR(attributes.mode):
                seen[attributes.inode].append(f"{path}/{name}")
                if not re.search(r"/(DATA|FREESURFER\w*|DICOM)/", path):
                    note(f"{path}/{name}")

    note("/views/ALFA")
    assert all(len({path.split("/")[3] for path in paths}) == len(paths) for paths in seen.values())
    assert len(seen) > 50
