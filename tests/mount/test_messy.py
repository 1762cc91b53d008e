"""What the user sees of every nasty case: one test a case. The spellings stand here in full, so that a change
of one is noticed.
"""

from __future__ import annotations

import csv
import errno
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import Lab
from tests.support import md5, run
from xnatfs.demo.data.messy import CASES, HOSTILE, LONG_LABEL, LONG_NAME, NFC, NFD
from xnatfs.demo.data.truth import TrueFile

SCANS, NAMES = "m01/m01_scans/SCANS", "m05/m05_names/SCANS/1-T1/NAMES"
CATALOGS = "m03/m03_catalogs/RESOURCES"
ODD = "a%2Fb (c) #1 50%+;?&'\" é"

# A case that is a file, or that a file lies in, under a name: case -> (path below subjects/, path below
# archive's experiments/).
PLACES: dict[str, tuple[str, str]] = {
    "scan-id-with-suffix": (f"{SCANS}/2-MR1-T1/NIFTI/which.txt", "m01_scans/SCANS/2-MR1/NIFTI/which.txt"),
    "scan-id-with-suffix-alone": (
        "m01/m01_suffix/SCANS/2-MR1-T1/NIFTI/which.txt",
        "m01_suffix/SCANS/2-MR1/NIFTI/which.txt",
    ),
    "scan-type-empty": (f"{SCANS}/6/NIFTI/which.txt", "m01_scans/SCANS/6/NIFTI/which.txt"),
    "scan-type-is-other-id": (f"{SCANS}/5-1/NIFTI/which.txt", "m01_scans/SCANS/5/NIFTI/which.txt"),
    "scan-type-odd": (f"{SCANS}/7-T1__100____2____x/NIFTI/which.txt", "m01_scans/SCANS/7/NIFTI/which.txt"),
    "scan-id-blank": (f"{SCANS}/a b-T1/NIFTI/which.txt", "m01_scans/SCANS/a b/NIFTI/which.txt"),
    "scan-id-slash": (f"{SCANS}/8%2F9-T1/NIFTI/which.txt", "m01_scans/SCANS/8%2F9/NIFTI/which.txt"),
    "scan-id-percent": (f"{SCANS}/10%#-T1/NIFTI/which.txt", "m01_scans/SCANS/10%#/NIFTI/which.txt"),
    "scan-id-skipped": (f"{SCANS}/0-OT1-OT/NIFTI/which.txt", "m01_scans/SCANS/0-OT1/NIFTI/which.txt"),
    "scan-folder-clash": (f"{SCANS}/20-T1%~20-T1/NIFTI/which.txt", "m01_scans/SCANS/20-T1/NIFTI/which.txt"),
    "scan-quality-empty": (f"{SCANS}/30-T1/NIFTI/which.txt", "m01_scans/SCANS/30/NIFTI/which.txt"),
    "session-label-accents": (
        "Ana María/Ana María 1ª/RESOURCES/NOTES/which.txt",
        "Ana María 1ª/RESOURCES/NOTES/which.txt",
    ),
    "session-label-odd": (f"Ana María/{ODD}/RESOURCES/NOTES/which.txt", f"{ODD}/RESOURCES/NOTES/which.txt"),
    "session-label-dot": ("m02/%2E/RESOURCES/NOTES/which.txt", "%2E/RESOURCES/NOTES/which.txt"),
    "session-label-dots": ("m02/%2E%2E/RESOURCES/NOTES/which.txt", "%2E%2E/RESOURCES/NOTES/which.txt"),
    "session-label-reserved": (
        "m02/%52ESOURCES/RESOURCES/NOTES/which.txt",
        "RESOURCES/RESOURCES/NOTES/which.txt",
    ),
    "session-label-files": (
        "m02/my_files_MR1/RESOURCES/NOTES/which.txt",
        "my_files_MR1/RESOURCES/NOTES/which.txt",
    ),
    "resource-label-empty": (
        "m03/m03_catalogs/SCANS/1-T1/1229/nameless.txt",
        "m03_catalogs/SCANS/1/1229/nameless.txt",
    ),
    "resource-label-digits": (
        "m03/m03_catalogs/SCANS/1-T1/12345/digits.txt",
        "m03_catalogs/SCANS/1/12345/digits.txt",
    ),
    "resource-label-dot": (f"{CATALOGS}/%2E/which.txt", "m03_catalogs/RESOURCES/%2E/which.txt"),
    "resource-label-dots": (f"{CATALOGS}/%2E%2E/which.txt", "m03_catalogs/RESOURCES/%2E%2E/which.txt"),
    "resource-label-odd": (f"{CATALOGS}/{ODD}/which.txt", f"m03_catalogs/RESOURCES/{ODD}/which.txt"),
    "resource-label-long": (
        f"{CATALOGS}/{'é' * 120}%~df20b2aa6262/which.txt",
        f"m03_catalogs/RESOURCES/{'é' * 120}%~df20b2aa6262/which.txt",
    ),
    "resource-label-files": (f"{CATALOGS}/files/which.txt", "m03_catalogs/RESOURCES/files/which.txt"),
    "resource-stats-unknown": (f"{CATALOGS}/UNCOUNTED/b.txt", "m03_catalogs/RESOURCES/UNCOUNTED/b.txt"),
    "folders-deep": (
        f"{CATALOGS}/TREE/1/2/3/4/5/6/deep.txt",
        "m03_catalogs/RESOURCES/TREE/1/2/3/4/5/6/deep.txt",
    ),
    "folder-called-zip": (
        f"{CATALOGS}/TREE/x.zip/inside.txt",
        "m03_catalogs/RESOURCES/TREE/x.zip/inside.txt",
    ),
    "zip-file": (f"{CATALOGS}/TREE/real.zip", "m03_catalogs/RESOURCES/TREE/real.zip"),
    "file-empty": (f"{CATALOGS}/TREE/empty.txt", "m03_catalogs/RESOURCES/TREE/empty.txt"),
    "size-too-big": (
        f"{CATALOGS}/SIZES/listed_too_big.bin",
        "m03_catalogs/RESOURCES/SIZES/listed_too_big.bin",
    ),
    "size-too-small": (
        f"{CATALOGS}/SIZES/listed_too_small.bin",
        "m03_catalogs/RESOURCES/SIZES/listed_too_small.bin",
    ),
    "digest-missing": (f"{CATALOGS}/DIGESTS/without.bin", "m03_catalogs/RESOURCES/DIGESTS/without.bin"),
    "digests-missing": (f"{CATALOGS}/UNHASHED/3.bin", "m03_catalogs/RESOURCES/UNHASHED/3.bin"),
    "file-and-folder": (f"{CATALOGS}/CLASH/a/b", "m03_catalogs/RESOURCES/CLASH/a/b"),
    "path-twice": (f"{CATALOGS}/TWICE/same.txt", "m03_catalogs/RESOURCES/TWICE/same.txt"),
    "size-9-mib": (f"{CATALOGS}/LARGE/nine.bin", "m03_catalogs/RESOURCES/LARGE/nine.bin"),
    "size-40-mib": (f"{CATALOGS}/LARGE/forty.bin", "m03_catalogs/RESOURCES/LARGE/forty.bin"),
    "assessor-label-odd": (
        f"m04/m04_MR1/ASSESSORS/{ODD}/DATA/odd.txt",
        f"m04_MR1/ASSESSORS/{ODD}/DATA/odd.txt",
    ),
}
SPELT_NAMES = {
    "slash-free punctuation in a file name": "(a) #1 50%+;?&'\" b.txt",
    "a file name that looks percent-encoded": "%2541.txt",
    "what the percent-encoded name would decode to": "A.txt",
    "a plus in a file name": "a+b.txt",
    "the plus read as a blank": "a b.txt",
    "an accent in one code point (NFC)": NFC,
    "the same accent in two code points (NFD)": NFD,
    "a newline in a file name": "two%0Alines.txt",
    "terminal escape characters in a file name": "%1B[31mred%1B[0m.txt",
    "a name of 255 bytes": LONG_NAME,
    "a name that starts with a dash": "-rf",
    "a hidden file": ".hidden.txt",
    "a file that a desktop left": ".DS_Store",
    "names that differ in case only, upper": "README.TXT",
    "names that differ in case only, lower": "readme.txt",
    "a backslash in a file name": "a\\b.txt",
    "a name that ends with a blank": "end ",
    "a square bracket and a brace": "[1]{2}|3.txt",
    "a folder called files": "x/files/y.txt",
    "a path that looks like a zip member's prefix": "S/resources/1/files/z.txt",
}
PLACES |= {
    f"name: {what}": (f"{NAMES}/{spelt}", f"m05_names/SCANS/1/NAMES/{spelt}")
    for what, spelt in SPELT_NAMES.items()
}


def truth(lab: Lab, case: str) -> TrueFile:
    """The file of a case; where a whole object is the case, a file in it."""
    place = CASES[case]
    wanted = {
        "subject": place.subject,
        "session": place.session,
        "scan": place.scan,
        "assessor": place.assessor,
    }
    found = lab.files("MESSY", **{name: value for name, value in wanted.items() if value})
    if place.resource is not None:
        found = [file for file in found if file.resource == place.resource]
    if place.path:
        found = [file for file in found if file.path == place.path]
    elif case in PLACES:
        found = [
            file
            for file in found
            if file.path == PLACES[case][0].rpartition("/")[2] and (place.scan or file.kind != "scan")
        ]
    (file,) = found or pytest.fail(f"the ground truth has no file for {case}")
    return file


def subjects(lab: Lab) -> Path:
    return lab.demo.point / "projects/MESSY/subjects"


def experiments(lab: Lab) -> Path:
    return lab.demo.point / "archive/projects/MESSY/experiments"


def attribute(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.xnat.{name}").decode()


@pytest.mark.parametrize("case", PLACES)
def test_the_file_lies_where_the_names_section_says_and_has_its_true_bytes(lab: Lab, case: str) -> None:
    file = truth(lab, case)
    people, programs = PLACES[case]
    for path in (subjects(lab) / people, experiments(lab) / programs):
        assert path.name in os.listdir(path.parent)
        if "\\" in path.name:  # in no way does XNAT give such a file
            with pytest.raises(OSError) as caught:
                path.read_bytes()
            assert caught.value.errno == errno.EIO
            continue
        assert path.read_bytes() == file.read()
        assert path.stat().st_size == file.size
        assert attribute(path, "name") == file.path.rpartition("/")[2]


# --- cases that are no single file, or of which there is more to say ----------------------------------------


def scan_id_with_suffix_beside_the_plain_one(lab: Lab) -> None:
    """Both are there, told apart by their ids, and the bare ids lead to each."""
    folder = subjects(lab) / SCANS
    assert {"2-T1", "2-MR1-T1"} <= set(os.listdir(folder))
    for bare, listed in (("2", "2-T1"), ("2-MR1", "2-MR1-T1")):
        assert (folder / bare / "NIFTI/which.txt").read_bytes() == (
            folder / listed / "NIFTI/which.txt"
        ).read_bytes()
        assert attribute(folder / listed, "scan") == bare


def scan_id_with_suffix_without_a_plain_one(lab: Lab) -> None:
    """No scan 2 is made up for it."""
    assert os.listdir(subjects(lab) / "m01/m01_suffix/SCANS") == ["2-MR1-T1"]
    assert os.listdir(experiments(lab) / "m01_suffix/SCANS") == ["2-MR1"]
    assert not (experiments(lab) / "m01_suffix/SCANS/2").exists()


def scan_without_type(lab: Lab) -> None:
    """The folder is the bare id, and has no attribute for the type."""
    names = os.listxattr(subjects(lab) / SCANS / "6")
    assert "user.xnat.scan" in names and "user.xnat.scan_type" not in names


def scan_type_that_is_another_scans_id(lab: Lab) -> None:
    """`SCANS/1` is the scan 1 and never the scan of type 1."""
    assert attribute(subjects(lab) / SCANS / "1", "scan_type") == "T2"
    assert b"scan 1 type T2" in (subjects(lab) / SCANS / "1/NIFTI/which.txt").read_bytes()


def scan_folders_that_clash(lab: Lab) -> None:
    """`20-T1` is the scan 20; the scan called 20-T1 gets its id appended. A listed name wins over an
    alias.
    """
    folder = subjects(lab) / SCANS
    assert (
        attribute(folder / "20-T1", "scan") == "20" and attribute(folder / "20-T1%~20-T1", "scan") == "20-T1"
    )
    assert attribute(experiments(lab) / "m01_scans/SCANS/20-T1", "scan") == "20-T1"


def scan_without_quality(lab: Lab) -> None:
    assert "user.xnat.quality" not in os.listxattr(subjects(lab) / SCANS / "30-T1")
    assert attribute(subjects(lab) / SCANS / "2-T1", "quality") == "usable"


def subject_with_accents(lab: Lab) -> None:
    folder = subjects(lab) / "Ana María"
    assert sorted(os.listdir(folder)) == ["Ana María 1ª", "RESOURCES", ODD]
    assert (folder / "RESOURCES/señal (1)/niño.txt").read_text() == "año\n"
    assert (
        lab.demo.point / "archive/projects/MESSY/subjects/Ana María/señal (1)/niño.txt"
    ).read_text() == "año\n"


def session_called_dot(lab: Lab) -> None:
    """`.` itself stays the folder it is in."""
    assert attribute(subjects(lab) / "m02/%2E", "label") == "."
    assert os.path.samefile(f"{subjects(lab)}/m02/.", subjects(lab) / "m02")


def session_called_dots(lab: Lab) -> None:
    assert attribute(subjects(lab) / "m02/%2E%2E", "label") == ".."
    assert os.path.samefile(f"{subjects(lab)}/m02/..", subjects(lab))


def session_called_like_the_folder_of_resources(lab: Lab) -> None:
    """`RESOURCES` of the subject is the subject's; the session has its first letter spelt. In `archive/`
    nothing clashes.
    """
    assert (
        subjects(lab) / "m02/RESOURCES/NOTES/subject.txt"
    ).read_bytes() == b"of the subject beside a session RESOURCES\n"
    assert attribute(subjects(lab) / "m02/%52ESOURCES", "label") == "RESOURCES"


def session_whose_label_is_another_ones_id(lab: Lab) -> None:
    """The listed name wins: it is the session of that label, here and in `archive/`."""
    (own,) = lab.files("MESSY", session="DEMO_E00002", kind="session")
    assert own.session_id != "DEMO_E00002"
    for path in (subjects(lab) / "m02/DEMO_E00002", experiments(lab) / "DEMO_E00002"):
        assert attribute(path, "id") == own.session_id
        assert (path / "RESOURCES/NOTES/which.txt").read_bytes() == own.read()
    other = lab.demo.point / "archive/projects/ALFA/experiments/DEMO_E00002"
    assert attribute(other, "label") == "sub001_MR2"


def session_without_scans(lab: Lab) -> None:
    """An empty folder, not an error."""
    assert os.listdir(subjects(lab) / "m02/m02_empty") == [] == os.listdir(experiments(lab) / "m02_empty")


def subject_without_sessions(lab: Lab) -> None:
    assert (
        os.listdir(subjects(lab) / "m00")
        == []
        == os.listdir(lab.demo.point / "archive/projects/MESSY/subjects/m00")
    )


def resources_of_one_label(lab: Lab) -> None:
    """Both are there: the older one under its label, the other with its number appended; and each under its
    number.
    """
    for folder in (subjects(lab) / "m03/m03_catalogs/SCANS/1-T1", experiments(lab) / "m03_catalogs/SCANS/1"):
        assert {"NIFTI", "NIFTI%~1228"} <= set(os.listdir(folder))
        for name, word in (
            ("NIFTI", b"first"),
            ("NIFTI%~1228", b"second"),
            ("1227", b"first"),
            ("1228", b"second"),
        ):
            assert sorted(os.listdir(folder / name)) == sorted([f"{word.decode()}.txt", "same.txt"])
            assert (folder / name / "same.txt").read_bytes() == b"same name, " + word + b"\n"


def label_too_long(lab: Lab) -> None:
    """The name is cut to 255 bytes at most; the attribute has the whole label."""
    (path,) = (
        subjects(lab) / CATALOGS / name
        for name in os.listdir(subjects(lab) / CATALOGS)
        if name.startswith("éé")
    )
    assert len(os.fsencode(path.name)) <= 255
    assert attribute(path, "resource") == LONG_LABEL


def folder_called_zip(lab: Lab) -> None:
    assert os.listdir(subjects(lab) / CATALOGS / "TREE/x.zip") == ["inside.txt"]


def real_zip(lab: Lab) -> None:
    """It is one file, and opens as a zip."""
    with zipfile.ZipFile(subjects(lab) / CATALOGS / "TREE/real.zip") as packed:
        assert packed.read("inner/b.txt") == b"inside the zip\n"


def resource_without_files(lab: Lab) -> None:
    """An empty folder, whether or not the server ever counted."""
    for name in ("SHELL_KNOWN", "SHELL_UNKNOWN"):
        assert name in os.listdir(subjects(lab) / CATALOGS)
        assert os.listdir(subjects(lab) / CATALOGS / name) == []


def resource_never_counted(lab: Lab) -> None:
    assert sorted(os.listdir(subjects(lab) / CATALOGS / "UNCOUNTED")) == ["a.txt", "b.txt"]


def size_wrong_in_the_catalog(lab: Lab) -> None:
    """Whoever reads gets every byte and not one more, with tools that trust the size too."""
    for name in ("listed_too_big.bin", "listed_too_small.bin"):
        (file,) = (file for file in lab.files("MESSY", resource="SIZES") if file.path == name)
        path = subjects(lab) / CATALOGS / "SIZES" / name
        assert path.read_bytes() == file.read()
        assert run("md5sum", path).stdout.split()[0] == file.digest
        assert len(run("tail", "-c", "10", path).stdout.encode(errors="surrogateescape")) == 10
        assert (
            path.stat().st_size
            == (experiments(lab) / "m03_catalogs/RESOURCES/SIZES" / name).stat().st_size
            == file.size
        )


def digest_missing(lab: Lab) -> None:
    """Read, and checked by size alone, which the attribute says."""
    path = subjects(lab) / CATALOGS / "DIGESTS/without.bin"
    assert len(path.read_bytes()) == 1000
    assert "user.xnat.digest" not in os.listxattr(path) and attribute(path, "verified") == "size"


def digest_wrong(lab: Lab) -> None:
    """An error, never bytes that may be wrong; the other files of the resource are read. Without digests it
    cannot be noticed.
    """
    file = truth(lab, "digest-wrong")
    path = subjects(lab) / CATALOGS / "DIGESTS/wrong.bin"
    if lab.profile == "proven":
        assert path.read_bytes() == file.read()
        return
    for one in (path, experiments(lab) / "m03_catalogs/RESOURCES/DIGESTS/wrong.bin"):
        with pytest.raises(OSError) as caught:
            one.read_bytes()
        assert caught.value.errno == errno.EIO
    assert md5((path.parent / "right.bin").read_bytes()) == attribute(path.parent / "right.bin", "digest")


def file_gone(lab: Lab) -> None:
    """It is listed, as the server lists it, and reading it is an error; its neighbours are read."""
    folder = subjects(lab) / CATALOGS / "GONE"
    assert sorted(os.listdir(folder)) == ["before.bin", "gone.bin", "there.bin"]
    shown = run("cat", folder / "gone.bin")
    assert (
        shown.returncode == 1
        and shown.stdout == ""
        and shown.stderr.endswith("gone.bin: Input/output error\n")
    )
    assert (len((folder / "before.bin").read_bytes()), len((folder / "there.bin").read_bytes())) == (10, 20)


def file_and_folder_of_one_name(lab: Lab) -> None:
    """The folder keeps the name, for the sake of the paths below it."""
    folder = subjects(lab) / CATALOGS / "CLASH"
    assert sorted(os.listdir(folder)) == ["a", "a%~file"]
    assert (folder / "a%~file").read_bytes() == b"the file a\n" and (
        folder / "a/b"
    ).read_bytes() == b"in the folder a\n"
    assert attribute(folder / "a%~file", "name") == "a"


def path_listed_twice(lab: Lab) -> None:
    """It is one file."""
    assert sorted(os.listdir(subjects(lab) / CATALOGS / "TWICE")) == ["once.txt", "same.txt"]


def in_and_out_of_one_label(lab: Lab) -> None:
    """All three resources are there; the numbers tell them apart."""
    folder = subjects(lab) / "m04/m04_MR1/ASSESSORS/m04_both"
    words = {(folder / name / "which.txt").read_text().strip() for name in os.listdir(folder)}
    assert words == {"in", "out", "plain"} and "DATA" in os.listdir(folder) and len(os.listdir(folder)) == 3
    for file in lab.files("MESSY", assessor="m04_both"):
        assert (folder / str(file.resource_id) / file.path).read_bytes() == file.read()
    average = subjects(lab) / "m04/m04_MR1/RECONSTRUCTIONS/1 T1 (mean)"
    assert {(average / name / "which.txt").read_text().strip() for name in os.listdir(average)} == {
        "in",
        "out",
    }
    assert sorted(os.listdir(folder.parent)) == [ODD, "m04_bare", "m04_both"]
    assert os.listdir(folder.parent / "m04_bare") == []


def shared_without_its_subject(lab: Lab) -> None:
    """It stands under its subject's own label, which shows nothing else of that subject."""
    assert os.listdir(subjects(lab) / "sub001") == ["borrowed_MR1"]
    session = subjects(lab) / "sub001/borrowed_MR1"
    assert attribute(session, "project") == "MESSY" and attribute(session, "label") == "borrowed_MR1"
    own = lab.demo.point / "projects/ALFA/subjects/sub001/sub001_MR1/SCANS/4-DWI/NIFTI/sub001_MR1_DWI.bvec"
    assert (session / "SCANS/4-DWI/NIFTI/sub001_MR1_DWI.bvec").read_bytes() == own.read_bytes() != b""


def assessor_shared_along(lab: Lab) -> None:
    """Under the label it has in this project."""
    (file,) = (
        file
        for file in lab.files("MESSY", assessor="sub001_MR1_freesurfer")
        if file.path.endswith("aseg.stats")
    )
    path = (
        subjects(lab) / "sub001/borrowed_MR1/ASSESSORS/sub001_MR1_freesurfer/DATA/sub001_MR1/stats/aseg.stats"
    )
    assert path.read_bytes() == file.read()


def assessor_not_shared(lab: Lab) -> None:
    assert os.listdir(subjects(lab) / "sub001/borrowed_MR1/ASSESSORS") == ["sub001_MR1_freesurfer"]
    assert "sub001_MR1_qc" in os.listdir(
        lab.demo.point / "projects/ALFA/subjects/sub001/sub001_MR1/ASSESSORS"
    )


def hostile_path(lab: Lab) -> None:
    """It is nowhere to be seen; the one decent file of that resource is."""
    for folder in (
        subjects(lab) / "m05/m05_names/SCANS/1-T1/HOSTILE",
        experiments(lab) / "m05_names/SCANS/1/HOSTILE",
    ):
        assert os.listdir(folder) == ["harmless.txt"]
        assert (folder / "harmless.txt").read_bytes() == b"the one file of this resource with a decent path\n"


def odd_scan_type(lab: Lab) -> None:
    """The folder has `_` for what is no letter or digit, as in XNAT's own zips; the attribute has the type as
    it is.
    """
    assert attribute(subjects(lab) / SCANS / "7-T1__100____2____x", "scan_type") == "T1 (100%)/#2+ é;x"


def names_apart_by_case_or_accent_only(lab: Lab) -> None:
    """Both of each pair are there, byte for byte as the server has them."""
    names = os.listdir(subjects(lab) / NAMES)
    assert {"README.TXT", "readme.txt", NFC, NFD, "a+b.txt", "a b.txt", "A.txt", "%2541.txt"} <= set(names)
    assert len(names) == len(SPELT_NAMES)


KNOWN_OF_PEOPLE = {
    "subject-without-demographics": ("m05", {"sex": "", "yob": "", "handedness": ""}),
    "subject-age-capped": ("m00", {"sex": "U", "subject_age": ">89", "handedness": "U", "ages": ""}),
    "subject-birth-partly-known": ("m01", {"sex": "unknown", "yob": "1980", "ages": "42; 42"}),
    "subject-recorded-twice": ("m02", {"person": "00042", "custom_age": "unknown", "Blood Type": "A+"}),
    "subject-text-odd": ("Ana María", {"race": "'=cmd|' /C calc'!A0", "group": "señal & ruido"}),
    "subject-born-later": ("m03", {"yob": "2023", "ages": "", "person": "00042"}),
    "session-age-negative": ("m04", {"ages": "-1", "visits": "3"}),
}


def known_of_people(lab: Lab) -> None:
    with (subjects(lab).parents[2] / "tables/MESSY/subjects.csv").open(
        encoding="utf-8", newline=""
    ) as stream:
        rows = {row["subject"]: row for row in csv.DictReader(stream)}
    lost: set[str] = set()
    if "person" not in rows["m00"]:  # a server without the columns of custom variables loses these only
        lost = {"person", "custom_age", "Blood Type", "visits"}
        assert "custom" in (lab.demo.point / ".xnatfs/oddities.txt").read_text()
    for case, (subject, values) in KNOWN_OF_PEOPLE.items():
        expected = {name: value for name, value in values.items() if name not in lost}
        assert {name: rows[subject][name] for name in expected} == expected, case


MORE: dict[str, Callable[[Lab], None]] = {
    "scan-id-with-suffix": scan_id_with_suffix_beside_the_plain_one,
    "scan-id-with-suffix-alone": scan_id_with_suffix_without_a_plain_one,
    "scan-type-empty": scan_without_type,
    "scan-type-is-other-id": scan_type_that_is_another_scans_id,
    "scan-type-odd": odd_scan_type,
    "scan-folder-clash": scan_folders_that_clash,
    "scan-quality-empty": scan_without_quality,
    "subject-label-accents": subject_with_accents,
    "session-label-dot": session_called_dot,
    "session-label-dots": session_called_dots,
    "session-label-reserved": session_called_like_the_folder_of_resources,
    "session-label-is-accession-id": session_whose_label_is_another_ones_id,
    "session-without-scans": session_without_scans,
    "subject-without-sessions": subject_without_sessions,
    "resource-label-twice": resources_of_one_label,
    "resource-label-long": label_too_long,
    "folder-called-zip": folder_called_zip,
    "zip-file": real_zip,
    "resource-empty-known": resource_without_files,
    "resource-empty-unknown": resource_without_files,
    "resource-stats-unknown": resource_never_counted,
    "size-too-big": size_wrong_in_the_catalog,
    "size-too-small": size_wrong_in_the_catalog,
    "digest-missing": digest_missing,
    "digest-wrong": digest_wrong,
    "file-gone": file_gone,
    "file-and-folder": file_and_folder_of_one_name,
    "path-twice": path_listed_twice,
    "assessor-in-and-out": in_and_out_of_one_label,
    "session-shared-without-subject": shared_without_its_subject,
    "assessor-shared": assessor_shared_along,
    "assessor-not-shared": assessor_not_shared,
    "name: names that differ in case only, upper": names_apart_by_case_or_accent_only,
    **{f"hostile: {path}": hostile_path for path in HOSTILE},
    **dict.fromkeys(KNOWN_OF_PEOPLE, known_of_people),
}


@pytest.mark.parametrize("case", MORE)
def test_what_the_user_sees(lab: Lab, case: str) -> None:
    MORE[case](lab)


def test_no_case_is_forgotten() -> None:
    assert set(PLACES) | set(MORE) == set(CASES)
