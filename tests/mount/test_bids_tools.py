"""The BIDS view through a real mount, as tools see it: bids-validator, pybids, MRtrix, nilearn, dcm2niix, cp
and rsync.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nibabel
import pytest

from tests.support import Mount, lab_archive, mount, run, xnatfs
from xnatfs.demo.data import fjord
from xnatfs.demo.server import DemoServer

NORD_MAP = r"""
images = "nii"

[labels]
subject = '^NORD_(\d+)$'

[[rule]]
type = "rest bold"          # this lab's scans have no number of frames
to = "func/bold"
entities = { task = "rest" }
sidecar = { Manufacturer = "Nordic" }
"""


PEOPLE = {
    "007": {"gender": "U", "yob": "", "age": ">89", "handedness": "unknown"},
    "sub001": {"yob": "1925", "height": "180"},
    "sub002": {"yob": "", "dob": "1960-00-00", "handedness": "A"},
    "sub004": {"gender": "", "yob": "2030", "group": "señal & ruido"},
}


def ok(*command: str | Path, timeout: float = 110) -> str:
    done = run(*command, timeout=timeout)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def tool(name: str) -> str:
    """A program of this interpreter's environment, or of the machine."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed (scripts/test installs it)"
    return found


def python(code: str, *arguments: Path | str) -> str:
    return ok(sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments)


def validate(folder: Path) -> Counter[str]:
    """The codes of the validator's errors."""
    done = run(tool("bids-validator-deno"), "--format", "json", folder, timeout=115, env={"NO_COLOR": "1"})
    report = json.loads(done.stdout)
    assert report["summary"]["totalFiles"] > 20
    return Counter(
        f"{one['code']} {one.get('subCode')} {one.get('location')}"
        for one in report["issues"]["issues"]
        if one["severity"] == "error"
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    folder = tmp_path_factory.mktemp("lab")
    named = folder / "nord.toml"
    named.write_text(NORD_MAP)
    archive = lab_archive()
    subjects = {one.label: one for one in archive.subjects.values() if one.project == "ALFA"}
    for label, values in PEOPLE.items():  # as labs write it
        subjects[label].gender = values.pop("gender", subjects[label].gender)
        subjects[label].yob = values.pop("yob", subjects[label].yob)
        subjects[label].fields |= values
    with (
        DemoServer(archive) as server,
        mount(server.url, folder, "--bids-map", str(named), env={"HOME": str(folder)}) as mounted,
    ):
        yield mounted


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    folder = tmp_path_factory.mktemp("fjord")
    with DemoServer(fjord.build()) as server, mount(server.url, folder, env={"HOME": str(folder)}) as mounted:
        yield mounted


@pytest.mark.parametrize("project", ["ALFA", "NORD"])
def test_the_validator_finds_no_error(lab: Mount, project: str) -> None:
    assert not validate(lab.point / "views" / project / "bids")


def test_the_validator_finds_no_error_in_all_that_bids_has_names_for(other: Mount) -> None:
    assert not validate(other.point / "views/FJORD/bids")


def test_pybids_finds_the_entities(lab: Mount, other: Mount) -> None:
    code = """
        import json, sys
        from bids import BIDSLayout
        layout = BIDSLayout(sys.argv[1])
        bold = layout.get(suffix="bold", extension=".nii.gz")
        print(json.dumps({
            "subjects": layout.get_subjects(), "sessions": layout.get_sessions(), "tasks": layout.get_tasks(),
            "datatypes": sorted(layout.get_datatypes()), "suffixes": sorted(layout.get_suffixes()),
            "runs": sorted({one.entities["run"] for one in bold if "run" in one.entities}),
            "echoes": sorted({int(one.entities["echo"]) for one in bold if "echo" in one.entities}),
            "metadata": bold[0].get_metadata(), "count": len(bold),
        }))
    """
    alfa = json.loads(python(code, lab.point / "views/ALFA/bids"))
    assert alfa["subjects"] == ["007", "sub001", "sub002", "sub003", "sub004", "sub005"] and alfa[
        "sessions"
    ] == ["MR1", "MR2"]
    assert alfa["tasks"] == ["rest"] and alfa["datatypes"] == ["anat", "dwi", "func"] and alfa["count"] == 9
    assert {"T1w", "T2w", "bold", "dwi"} <= set(alfa["suffixes"])
    assert alfa["metadata"]["RepetitionTime"] == 2.0 and alfa["metadata"]["TaskName"] == "rest"
    nord = json.loads(python(code, lab.point / "views/NORD/bids"))
    assert nord["subjects"] == ["0001", "0002", "0003"] and nord["sessions"] == [
        "20190314",
        "20190509",
        "20190620",
        "20200402",
    ]
    assert nord["metadata"] == {"TaskName": "rest", "RepetitionTime": 2.5, "Manufacturer": "Nordic"}
    found = json.loads(python(code, other.point / "views/FJORD/bids"))
    assert found["datatypes"] == ["anat", "dwi", "fmap", "func", "perf"] and found["tasks"] == [
        "faces",
        "rest",
    ]
    assert found["runs"] == [1, 2] and found["echoes"] == [1, 2, 3] and found["count"] == 4 * (3 + 2)


def test_pybids_finds_what_is_known_of_the_participants(lab: Mount) -> None:
    code = """
        import json, sys
        from bids import BIDSLayout
        layout = BIDSLayout(sys.argv[1])
        people = layout.get(suffix="participants", extension=".tsv")[0].get_df()
        visits = layout.get(suffix="sessions", extension=".tsv", subject="sub003")[0].get_df()
        print(people.to_json(orient="records"))
        print(visits.to_json(orient="records"))
    """
    people, visits = map(json.loads, python(code, lab.point / "views/ALFA/bids").splitlines())
    found = {one["participant_id"]: one for one in people}
    assert [found[one]["age"] for one in ("sub-007", "sub-sub001", "sub-sub002", "sub-sub003")] == [
        *("89+", "89+", "61", "72")
    ]
    assert [found[one]["sex"] for one in ("sub-007", "sub-sub001", "sub-sub002")] == [None, "female", "male"]
    assert found["sub-sub002"]["handedness"] == "ambidextrous" and found["sub-sub003"]["handedness"] == "left"
    assert [one["age"] for one in visits] == [72, 74]


def test_mrtrix_and_nilearn_read_paths_of_the_views(lab: Mount, tmp_path: Path) -> None:
    session = lab.point / "views/ALFA/bids/sub-sub002/ses-MR1"
    dwi = session / "dwi/sub-sub002_ses-MR1_dwi.nii.gz"
    assert shutil.which("mrconvert"), "mrconvert is not installed"
    out = tmp_path / "dwi.mif"
    ok(
        "mrconvert",
        "-quiet",
        dwi,
        "-fslgrad",
        dwi.with_name("sub-sub002_ses-MR1_dwi.bvec"),
        dwi.with_name("sub-sub002_ses-MR1_dwi.bval"),
        out,
    )
    assert ok("mrinfo", "-size", out).split() == ["32", "32", "12", "7"]
    code = """
        import sys
        from nilearn.image import load_img, mean_img
        image = load_img(sys.argv[1])
        print(image.shape, mean_img(image, copy_header=True).shape)
        print(len(load_img(sys.argv[2]).shape))
    """
    bold = session / "func/sub-sub002_ses-MR1_task-rest_bold.nii.gz"
    assert python(code, bold, session / "anat" / "sub-*_T1w.nii.gz").split("\n")[:2] == [
        "(32, 32, 12, 10) (32, 32, 12)",
        "4",
    ]


def test_dcm2niix_converts_a_series_of_the_views(lab: Mount, tmp_path: Path) -> None:
    series = next((lab.point / "views/ALFA/by-scan-type/T1_ALFA1/usable/DICOM").glob("sub002_*"))
    ok(tool("dcm2niix"), "-z", "n", "-o", tmp_path, "-f", "out", series)
    converted = nibabel.load(next(tmp_path.glob("out*.nii")))
    assert sorted(converted.shape) == sorted(
        nibabel.load(next((lab.point / "views/ALFA/bids/sub-sub002").rglob("*_T1w.nii.gz"))).shape
    )


def test_cp_copies_a_dataset_whole(other: Mount, tmp_path: Path) -> None:
    source = other.point / "views/FJORD/bids"
    ok("cp", "-r", source, tmp_path)
    copy = tmp_path / "bids"
    assert ok("diff", "-r", source, copy) == ""
    for path in copy.rglob("*.json"):
        json.loads(path.read_bytes())
    assert all(gzip.decompress(path.read_bytes())[344:347] == b"n+1" for path in copy.rglob("*.nii.gz"))
    assert not validate(copy)


def test_one_size_whatever_is_asked_first(lab: Mount) -> None:
    path = lab.point / "views/ALFA/bids/sub-sub003/ses-MR1/func/sub-sub003_ses-MR1_task-rest_bold.json"
    before = path.stat()
    data = path.read_bytes()
    assert before.st_size > 0 and path.stat().st_size == len(data) and path.stat().st_ino == before.st_ino
    assert int(ok("stat", "-c", "%s", path)) == len(data)


def test_a_wrong_map_is_one_plain_sentence(lab: Mount, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[[rule]]\nany = "*"\nto = "anat/T9w"\n')
    (tmp_path / "mnt").mkdir()
    told = xnatfs(
        "mount",
        str(tmp_path / "mnt"),
        "--bids-map",
        str(wrong),
        env={**lab.env, "XNATFS_STATE_DIR": str(tmp_path / "state")},
    )
    assert (
        told.returncode != 0
        and "anat has no suffix 'T9w'" in told.stderr
        and len(told.stderr.strip().splitlines()) == 1
    )
    assert (
        subprocess.run(["mountpoint", "-q", str(tmp_path / "mnt")], check=False, timeout=10).returncode != 0
    )
