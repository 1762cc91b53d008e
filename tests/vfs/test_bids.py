"""The BIDS view without a mount: the same nodes under other names, no request beyond the listings, sidecars
with true sizes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import md5, read, walk
from tests.vfs.conftest import Compose, Shelf
from xnatfs.config import Privacy
from xnatfs.demo.data import fjord, images
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.vfs import Vfs

ALFA = "/views/ALFA/bids"
MR1 = f"{ALFA}/sub-sub001/ses-MR1"
LISTING = r"^GET .*/files\?"
CONTENT = r"^GET .*/resources/\d+/files(/|\?format=zip)"


@pytest.fixture(scope="module")
def _fjord() -> Iterator[DemoServer]:
    with DemoServer(fjord.build()) as server:
        yield server


@pytest.fixture
def other(_fjord: DemoServer) -> DemoServer:
    _fjord.clear_log()
    return _fjord


def names(vfs: Vfs, path: str) -> list[str]:
    return [name for name, _ in vfs.entries(path)]


def table(vfs: Vfs, path: str) -> list[dict[str, str]]:
    lines = read(vfs, path).decode().splitlines()
    return [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]


def test_the_top_lists_no_sessions_files(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab).vfs
    found = names(vfs, ALFA)
    assert found[-6:] == ["sub-007", "sub-sub001", "sub-sub002", "sub-sub003", "sub-sub004", "sub-sub005"]
    assert {
        "dataset_description.json",
        "README",
        ".bidsignore",
        "participants.tsv",
        "participants.json",
        "unmapped.tsv",
        "code",
    } < set(found)
    assert names(vfs, f"{ALFA}/sub-sub001") == [
        "ses-MR1",
        "ses-MR2",
        "sub-sub001_sessions.tsv",
        "sub-sub001_sessions.json",
    ]
    assert table(vfs, f"{ALFA}/participants.tsv")[1] == {
        "participant_id": "sub-sub001",
        "age": "65",
        "sex": "female",
        "handedness": "right",
        "group": "control",
        "education": "12",
        "apoe": "e3/e3",
        "screening_id": "001956",
        "original_label": "sub001",
        "accession_id": "DEMO_S00001",
        "project": "ALFA",
    }
    sessions = table(vfs, f"{ALFA}/sub-sub001/sub-sub001_sessions.tsv")
    assert [(row["session_id"], row["acq_time"], row["original_label"]) for row in sessions] == [
        ("ses-MR1", "2021-02-15T09:12:30", "sub001_MR1"),
        ("ses-MR2", "2023-03-01T10:02:11", "sub001_MR2"),
    ]
    assert not lab.requests(LISTING) and not lab.requests(CONTENT)


def test_what_is_known_of_people_is_in_the_words_of_bids(lab: DemoServer, compose: Compose) -> None:
    """Whatever BIDS has no word for is `n/a`, which a validator takes."""
    vfs = compose(lab).vfs
    found = {row["original_label"]: row for row in table(vfs, "/views/MESSY/bids/participants.tsv")}
    assert [found[label]["sex"] for label in ("m01", "m02", "Ana María", "m03")] == [
        *("n/a", "female", "female", "male")
    ]
    assert [found[label]["handedness"] for label in ("m01", "m02")] == ["n/a", "ambidextrous"]
    assert found["m04"]["age"] == found["m03"]["age"] == "n/a"  # below zero; born after the session
    assert found["sub001"]["age"] == "n/a"  # shared in without its subject
    assert found["m02"]["custom_age"] == "unknown"
    described = json.loads(read(vfs, "/views/ALFA/bids/participants.json"))
    assert described["age"]["Units"] == "year" and set(described["group"]["Levels"]) == {"control", "patient"}
    assert described.keys() == table(vfs, f"{ALFA}/participants.tsv")[0].keys() - {"participant_id"}
    ages = table(vfs, f"{ALFA}/sub-sub001/sub-sub001_sessions.tsv")
    assert [row["age"] for row in ages] == ["65", "67"]


def test_without_demographics_nothing_is_known_of_people(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab, privacy=Privacy(demographics=False)).vfs
    assert list(table(vfs, f"{ALFA}/participants.tsv")[0]) == [
        *("participant_id", "original_label", "accession_id", "project")
    ]
    assert "age" not in table(vfs, f"{ALFA}/sub-sub001/sub-sub001_sessions.tsv")[0]


def test_the_images_are_there_where_the_participants_cannot_be_listed(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table without its columns would pass for a true one: it is an error until it can be had."""
    scan = shelf.make.scan(shelf.session, "1", "T1w")
    shelf.make.resource(scan, "NIFTI", {"x.nii.gz": b"\x1f\x8b"})
    core = compose(shelf.server)
    details = core.listing_service.details

    def away(project: str) -> None:
        raise Failure(Cause.UNREACHABLE, project)

    monkeypatch.setattr(details, "subjects", away)
    assert "sub-s" in names(core.vfs, "/views/P/bids")
    with pytest.raises(OSError, match="P"):
        read(core.vfs, "/views/P/bids/participants.tsv")
    monkeypatch.undo()
    shelf.server.call(lambda: setattr(shelf.subject, "gender", "female"))
    assert table(core.vfs, "/views/P/bids/participants.tsv")[0]["sex"] == "female"


def test_one_node_whatever_the_path(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab).vfs
    here = f"{MR1}/anat/sub-sub001_ses-MR1_T1w.nii.gz"
    there = "/projects/ALFA/subjects/sub001/sub001_MR1/SCANS/2-T1_ALFA1/NIFTI/sub001_MR1_T1_ALFA1.nii.gz"
    assert vfs.attributes(here) == vfs.attributes(there)
    assert vfs.xattr(here, "user.xnat.digest") == vfs.xattr(there, "user.xnat.digest")
    assert set(vfs.xattrs(here)) == set(vfs.xattrs(there))
    assert read(vfs, here) == read(vfs, there)
    assert len(lab.requests(CONTENT)) == 1
    assert vfs.attributes(f"{MR1}/anat/sub-sub001_ses-MR1_T1w.json") == vfs.attributes(
        there.replace(".nii.gz", ".json")
    )


def test_every_image_is_the_servers_file(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab).vfs
    truth = {entry.inode: (entry.size, entry.mtime) for _, entry in walk(vfs, "/projects/ALFA")}
    lab.clear_log()
    shown = [(path, entry) for path, entry in walk(vfs, ALFA) if path.endswith((".nii.gz", ".bval", ".bvec"))]
    assert len(shown) == 9 * (4 + 2)
    assert all(truth[entry.inode] == (entry.size, entry.mtime) for _, entry in shown)
    assert len({entry.inode for _, entry in shown}) == len(shown)
    # The listings `projects` made are all it takes, what is known of the subjects, and one look each whether
    # the lab has mapping files.
    assert [record.path for record in lab.requests(".")] == [
        "/data/projects/ALFA/config",
        "/data/config/bids/bidsmap",
        "/data/projects/ALFA/subjects",
    ]


def test_a_cold_walk_costs_the_listings_only(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab).vfs
    names(vfs, ALFA)
    lab.clear_log()
    list(walk(vfs, ALFA))
    assert (
        len(lab.requests(".")) == len(lab.requests(LISTING)) <= 14
    )  # 12 experiments, and those asked for together


def test_a_made_sidecar_has_its_true_size_before_it_is_read(lab: DemoServer, compose: Compose) -> None:
    vfs = compose(lab).vfs
    path = f"{MR1}/func/sub-sub001_ses-MR1_task-rest_bold.json"
    before = vfs.attributes(path)
    assert before.size > 0
    lab.clear_log()
    opened = vfs.open(path)
    assert opened.size_changed
    size = vfs.attributes(path).size
    assert size == vfs.size_of(opened.handle)
    data = vfs.read(opened.handle, 0, 100_000)
    vfs.release(opened.handle)
    assert len(data) == size and json.loads(data)["TaskName"] == "rest"
    assert len(lab.requests(CONTENT)) == 1
    # The original lacks nothing: it is its very bytes, and its date.
    original = "/projects/ALFA/subjects/sub001/sub001_MR1/SCANS/5-REST/NIFTI/sub001_MR1_REST.json"
    assert data == read(vfs, original) and before.mtime == vfs.attributes(original).mtime
    vfs.forget()
    assert vfs.attributes(path).size == size and vfs.attributes(path).inode == before.inode
    assert read(vfs, path) == data and len(lab.requests(CONTENT)) == 1


def test_what_a_sidecar_lacks_is_filled_in(other: DemoServer, compose: Compose) -> None:
    vfs = compose(other).vfs
    ses = "/views/FJORD/bids/sub-F01/ses-v1"

    def sidecar(path: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(read(vfs, f"{ses}/{path}"))
        return found

    rest = sidecar("func/sub-F01_ses-v1_task-rest_run-02_bold.json")
    assert (
        rest["RepetitionTime"] == 2.2 and rest["TaskName"] == "rest" and rest["SeriesNumber"] == 6
    )  # from the image's header
    echo = sidecar("func/sub-F01_ses-v1_task-faces_echo-3_bold.json")
    assert echo["EchoTime"] == 0.0514 and echo["TaskName"] == "faces" and echo["RepetitionTime"] == 1.5
    phase = sidecar("fmap/sub-F01_ses-v1_phasediff.json")
    assert phase["EchoTime1"] == 0.00492 and phase["EchoTime2"] == 0.00738
    assert "bids::sub-F01/ses-v1/func/sub-F01_ses-v1_task-rest_run-01_bold.nii.gz" in str(
        phase["IntendedFor"]
    )
    asl = sidecar("perf/sub-F01_ses-v1_asl.json")
    assert asl["RepetitionTimePreparation"] == 4.6 and asl["ArterialSpinLabelingType"] == "PCASL"
    assert sidecar("perf/sub-F01_ses-v1_m0scan.json")["IntendedFor"] == [
        "bids::sub-F01/ses-v1/perf/sub-F01_ses-v1_asl.nii.gz"
    ]
    assert read(vfs, f"{ses}/func/sub-F01_ses-v1_task-faces_events.tsv") == fjord.EVENTS
    headers = [one for one in other.requests(CONTENT) if one.path.endswith("_6.nii.gz")]
    assert len(headers) <= 1


def test_what_has_no_place_is_listed_with_the_reason(other: DemoServer, compose: Compose) -> None:
    vfs = compose(other).vfs
    top = "/views/FJORD/bids"
    assert vfs.attributes(f"{top}/unmapped.tsv").size > 0
    names(vfs, top)
    other.clear_log()
    rows = table(vfs, f"{top}/unmapped.tsv")
    assert vfs.attributes(f"{top}/unmapped.tsv").size == len(read(vfs, f"{top}/unmapped.tsv"))
    assert len(other.requests(".")) == len(other.requests(LISTING)) <= 6
    first = {row["scan_id"]: row["reason"] for row in rows if row["session"] == "F 01 v1"}
    assert list(first) == ["1", "2", "7", "15", "16", "18", "19"]
    assert (
        first["7"] == "func/bold needs 2 or more frames, it has 1"
        and first["15"] == "dwi/dwi needs a file bval beside the image"
    )
    # Everything the server has is either placed or listed.
    placed = {row["scan_id"] for row in table(vfs, f"{top}/sub-F01/ses-v1/sub-F01_ses-v1_scans.tsv")}
    assert placed | set(first) == set(fjord.SCANS)
    assert read(vfs, f"{top}/.bidsignore") == b"unmapped.tsv\n"


def test_labels_lead_back(other: DemoServer, compose: Compose) -> None:
    vfs = compose(other).vfs
    people = {
        row["participant_id"]: row["original_label"]
        for row in table(vfs, "/views/FJORD/bids/participants.tsv")
    }
    assert people == {"sub-F01": "F 01", "sub-F01xFJS00002": "F-01", "sub-AseOst": "Åse/Øst"}
    sessions = table(vfs, "/views/FJORD/bids/sub-AseOst/sub-AseOst_sessions.tsv")
    assert [(row["session_id"], row["original_label"]) for row in sessions] == [
        ("ses-baseline", "Åse/Øst_ses-baseline")
    ]


def test_the_maps_stand_on_each_other(
    other: DemoServer, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNATFS_CONFIG_DIR", str(tmp_path))
    (tmp_path / "bids.toml").write_text(
        '[[rule]]\ntype = "something else"\nto = "anat/T1map"\n[labels]\nsubject = "F.(.+)"\n'
    )
    named = tmp_path / "mine.toml"
    named.write_text('[[rule]]\ntype = "emotion task"\nto = "func/bold"\nentities = { task = "mine" }\n')
    vfs = compose(other, bids_map=named).vfs
    top = "/views/FJORD/bids"
    assert "sub-01" in names(vfs, top)  # the user's own
    func = names(vfs, f"{top}/sub-01/ses-v1/func")
    assert "sub-01_ses-v1_task-mine_echo-1_bold.nii.gz" in func  # the one named over the project's
    assert "sub-01_ses-v1_T1map.nii.gz" in names(vfs, f"{top}/sub-01/ses-v1/anat")
    assert "sub-01_ses-v1_asl.nii.gz" in names(vfs, f"{top}/sub-01/ses-v1/perf")  # the project's
    text = read(vfs, f"{top}/code/bids.toml").decode()
    places = [text.index(part) for part in ("mine.toml", "something else", "perf 3D", "the usual rules")]
    assert places == sorted(places)
    # One that is for this project alone, in place of the one for all.
    own = tmp_path / "own.toml"
    own.write_text(named.read_text().replace('"mine"', '"own"'))
    vfs = compose(other, "own", bids_map=named, project_bids_maps=(("FJORD", own), ("ELSEWHERE", named))).vfs
    assert "sub-01_ses-v1_task-own_echo-1_bold.nii.gz" in names(vfs, f"{top}/sub-01/ses-v1/func")
    vfs = compose(other, "others", bids_map=named, project_bids_maps=(("ELSEWHERE", own),)).vfs
    assert "sub-01_ses-v1_task-mine_echo-1_bold.nii.gz" in names(vfs, f"{top}/sub-01/ses-v1/func")
    named.write_text("rule = 1")
    with pytest.raises(UsageError, match="write rules as"):
        compose(other, "wrong", bids_map=named)
    with pytest.raises(UsageError, match="write rules as"):
        compose(other, "wrong", project_bids_maps=(("FJORD", named),))


def test_a_projects_map_that_is_wrong_shows_no_dataset(shelf: Shelf, compose: Compose) -> None:
    scan = shelf.make.scan(shelf.session, "1", "T1")
    shelf.make.resource(
        scan,
        "NIFTI",
        {"t.nii.gz": images.nifti(images.head("t", (4, 4, 4)), images.affine_of((4, 4, 4), (1.0, 1.0, 1.0)))},
    )
    shelf.make.resource(shelf.project, "XNATFS", {"bids.toml": b"[[rule]]\nto = 'anat/T9w'\n"})
    vfs = compose(shelf.server).vfs
    assert names(vfs, "/views/P/bids") == ["README"]
    assert b"bids.toml in the resource XNATFS of project P: rule 1" in read(vfs, "/views/P/bids/README")


def test_a_listing_that_cannot_be_had_is_a_line_not_a_hole(shelf: Shelf, compose: Compose) -> None:
    scan = shelf.make.scan(shelf.session, "1", "T1")
    shelf.make.resource(scan, "NIFTI", {"t.nii.gz": b"not really"})
    broken = shelf.make.scan(shelf.session, "2", "REST", frames="9")
    shelf.make.resource(broken, "NIFTI", {"r.nii.gz": b"not really", "r.json": b"{ no json"})
    vfs = compose(shelf.server).vfs
    assert names(vfs, "/views/P/bids/sub-s/ses-S") == [
        "anat",
        "func",
        "sub-s_ses-S_scans.tsv",
        "sub-s_ses-S_scans.json",
    ]
    made = json.loads(read(vfs, "/views/P/bids/sub-s/ses-S/func/sub-s_ses-S_task-rest_bold.json"))
    assert made == {"TaskName": "rest"}


def test_new_sessions_rename_nothing(shelf: Shelf, compose: Compose) -> None:
    def add(subject: str, label: str) -> None:
        person = shelf.make.subject(shelf.project, subject)
        scan = shelf.make.scan(shelf.make.experiment(person, label), "1", "T1")
        shelf.make.resource(scan, "NIFTI", {"t.nii.gz": md5(label.encode()).encode()})

    add("b_1", "b_1_A")
    mounted = compose(shelf.server)
    before = {
        path: entry.inode for path, entry in walk(mounted.vfs, "/views/P/bids") if path.endswith(".nii.gz")
    }
    shelf.server.call(lambda: add("b-1", "b-1_A"))
    mounted.refresh()
    after = {
        path: entry.inode for path, entry in walk(mounted.vfs, "/views/P/bids") if path.endswith(".nii.gz")
    }
    assert before.items() <= after.items() and len(after) == len(before) + 1
    assert "/views/P/bids/sub-b1xTS00003/ses-A/anat/sub-b1xTS00003_ses-A_T1w.nii.gz" in after


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_both_profiles_show_the_same(lab: DemoServer, compose: Compose, profile: str) -> None:
    lab.switches.update({"profile": profile})
    vfs = compose(lab).vfs
    assert len([path for path, _ in walk(vfs, ALFA) if path.endswith(".nii.gz")]) == 9 * 4
    assert len(table(vfs, f"{ALFA}/unmapped.tsv")) == 11
    assert names(vfs, ALFA)[-6:] == [
        "sub-007",
        "sub-sub001",
        "sub-sub002",
        "sub-sub003",
        "sub-sub004",
        "sub-sub005",
    ]


def test_a_list_is_a_dataset_across_projects(lab: DemoServer, compose: Compose, tmp_path: Path) -> None:
    chosen = tmp_path / "some.txt"
    chosen.write_text("sub001_MR2\nsub003_MR1\nphantom_DTI2\n")
    vfs = compose(lab, lists=(chosen,)).vfs
    top = "/lists/some/bids"
    assert [name for name in names(vfs, top) if name.startswith("sub-")] == [
        "sub-phantom",
        "sub-sub001",
        "sub-sub003",
    ]
    assert names(vfs, f"{top}/code") == ["ALFA.toml", "DWI.toml", "bids.toml.suggested"]
    rows = table(vfs, f"{top}/participants.tsv")
    assert {row["original_label"]: row["project"] for row in rows} == {
        "phantom": "DWI",
        "sub001": "ALFA",
        "sub003": "ALFA",
    }
    here = f"{top}/sub-sub001/ses-MR2/anat/sub-sub001_ses-MR2_T1w.nii.gz"
    assert vfs.attributes(here) == vfs.attributes(
        f"{ALFA}/sub-sub001/ses-MR2/anat/sub-sub001_ses-MR2_T1w.nii.gz"
    )
