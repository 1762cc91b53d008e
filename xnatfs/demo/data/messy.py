"""Project MESSY of the `lab` data: every nasty case that a real server's data can have, each with a name.

Used by `lab.py`; tests take a case's whereabouts from `CASES` and look them up by these labels (the labels in
project MESSY). `CASES` is the table: what each case is, and where it lies.
"""

from __future__ import annotations

import io
import unicodedata
import zipfile
from dataclasses import dataclass

from xnatfs.demo.data.draw import noise
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import ComputedContent, Experiment, Project, Scan, Subject

MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """A nasty case: what it is, and where (labels; empty where the case is not that deep)."""

    what: str
    subject: str = ""
    session: str = ""
    scan: str = ""
    assessor: str = ""
    resource: str | None = None
    path: str = ""


NFC, NFD = unicodedata.normalize("NFC", "café.txt"), unicodedata.normalize("NFD", "café.txt")
LONG_NAME = "n" * 251 + ".txt"
LONG_LABEL = "é" * 200
ODD_TYPE = "T1 (100%)/#2+ é;x"
ODD_LABEL = "a/b (c) #1 50%+;?&'\" é"
ACCESSION_LABEL = "DEMO_E00002"  # the accession id of another session, sub001_MR2 of ALFA
NAMES = {
    "slash-free punctuation in a file name": "(a) #1 50%+;?&'\" b.txt",
    "a file name that looks percent-encoded": "%41.txt",
    "what the percent-encoded name would decode to": "A.txt",
    "a plus in a file name": "a+b.txt",
    "the plus read as a blank": "a b.txt",
    "an accent in one code point (NFC)": NFC,
    "the same accent in two code points (NFD)": NFD,
    "a newline in a file name": "two\nlines.txt",
    "terminal escape characters in a file name": "\x1b[31mred\x1b[0m.txt",
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
HOSTILE = ("../../etc/passwd", "/etc/passwd", "a/../../b", "./c", "a//b", "folder/", "..")

CASES: dict[str, Case] = {
    "scan-id-with-suffix": Case("scan 2-MR1 beside a scan 2", "m01", "m01_scans", "2-MR1"),
    "scan-id-with-suffix-alone": Case("scan 2-MR1 without a scan 2", "m01", "m01_suffix", "2-MR1"),
    "scan-type-empty": Case("a scan without type", "m01", "m01_scans", "6"),
    "scan-type-is-other-id": Case("scan 5 has the type 1, and there is a scan 1", "m01", "m01_scans", "5"),
    "scan-type-odd": Case("blanks, brackets, slash, accent in the scan type", "m01", "m01_scans", "7"),
    "scan-id-blank": Case("a blank in the scan id", "m01", "m01_scans", "a b"),
    "scan-id-slash": Case("a slash in the scan id", "m01", "m01_scans", "8/9"),
    "scan-id-percent": Case("percent and hash in the scan id", "m01", "m01_scans", "10%#"),
    "scan-id-skipped": Case("a scan id of the kind that bx skips", "m01", "m01_scans", "0-OT1"),
    "scan-folder-clash": Case(
        "scan 20 of type T1 and scan 20-T1 without type: both folders are 20-T1", "m01", "m01_scans", "20-T1"
    ),
    "scan-quality-empty": Case("a scan without quality", "m01", "m01_scans", "30"),
    "subject-label-accents": Case("blank and accents in the subject label", "Ana María"),
    "session-label-accents": Case("blank and accents in the session label", "Ana María", "Ana María 1ª"),
    "session-label-odd": Case("slash, quotes and more in the session label", "Ana María", ODD_LABEL),
    "session-label-dot": Case("a session called .", "m02", "."),
    "session-label-dots": Case("a session called ..", "m02", ".."),
    "session-label-reserved": Case("a session called RESOURCES", "m02", "RESOURCES"),
    "session-label-is-accession-id": Case(
        "a session whose label is another session's accession id", "m02", ACCESSION_LABEL
    ),
    "session-label-files": Case("a session label with the word files", "m02", "my_files_MR1"),
    "session-without-scans": Case("a session without scans", "m02", "m02_empty"),
    "subject-without-sessions": Case("a subject without sessions", "m00"),
    "subject-without-demographics": Case("nothing is known of a subject", "m05"),
    "subject-age-capped": Case("an age written as more than 89, a sex and a hand as U", "m00"),
    "subject-birth-partly-known": Case("a date of birth of which only the year is known", "m01"),
    "subject-recorded-twice": Case("one person as two subjects, with the same custom variables", "m02", ""),
    "subject-text-odd": Case("non-ASCII, a formula, a tab and a line break in a subject's data", "Ana María"),
    "subject-born-later": Case("born after the session", "m03"),
    "session-age-negative": Case("a session's own age below zero", "m04", "m04_MR1"),
    "resource-label-twice": Case(
        "two resources NIFTI on one scan", "m03", "m03_catalogs", "1", resource="NIFTI"
    ),
    "resource-label-empty": Case("a resource without label", "m03", "m03_catalogs", "1", resource=""),
    "resource-label-digits": Case("a label of digits only", "m03", "m03_catalogs", "1", resource="12345"),
    "resource-label-dot": Case("a resource called .", "m03", "m03_catalogs", resource="."),
    "resource-label-dots": Case("a resource called ..", "m03", "m03_catalogs", resource=".."),
    "resource-label-odd": Case(
        "slash, quotes and more in the label", "m03", "m03_catalogs", resource=ODD_LABEL
    ),
    "resource-label-long": Case("a label of 400 bytes", "m03", "m03_catalogs", resource=LONG_LABEL),
    "resource-label-files": Case("a resource called files", "m03", "m03_catalogs", resource="files"),
    "folders-deep": Case(
        "folders six deep", "m03", "m03_catalogs", resource="TREE", path="1/2/3/4/5/6/deep.txt"
    ),
    "folder-called-zip": Case(
        "a folder called x.zip", "m03", "m03_catalogs", resource="TREE", path="x.zip/inside.txt"
    ),
    "zip-file": Case("a real zip file", "m03", "m03_catalogs", resource="TREE", path="real.zip"),
    "file-empty": Case("a file of 0 bytes", "m03", "m03_catalogs", resource="TREE", path="empty.txt"),
    "resource-empty-known": Case(
        "a resource without files, counted", "m03", "m03_catalogs", resource="SHELL_KNOWN"
    ),
    "resource-empty-unknown": Case(
        "a resource without files, never counted", "m03", "m03_catalogs", resource="SHELL_UNKNOWN"
    ),
    "resource-stats-unknown": Case(
        "a resource with files, never counted", "m03", "m03_catalogs", resource="UNCOUNTED"
    ),
    "size-too-big": Case(
        "the catalog's size is too big", "m03", "m03_catalogs", resource="SIZES", path="listed_too_big.bin"
    ),
    "size-too-small": Case(
        "the catalog's size is too small",
        "m03",
        "m03_catalogs",
        resource="SIZES",
        path="listed_too_small.bin",
    ),
    "digest-missing": Case(
        "one file without digest", "m03", "m03_catalogs", resource="DIGESTS", path="without.bin"
    ),
    "digest-wrong": Case(
        "a digest that is wrong", "m03", "m03_catalogs", resource="DIGESTS", path="wrong.bin"
    ),
    "digests-missing": Case(
        "no file of the resource has a digest", "m03", "m03_catalogs", resource="UNHASHED"
    ),
    "file-gone": Case(
        "listed, but the file is gone", "m03", "m03_catalogs", resource="GONE", path="gone.bin"
    ),
    "file-and-folder": Case("a file a and a folder a", "m03", "m03_catalogs", resource="CLASH", path="a/b"),
    "path-twice": Case(
        "the same path listed twice", "m03", "m03_catalogs", resource="TWICE", path="same.txt"
    ),
    "size-9-mib": Case("a file of 9 MiB", "m03", "m03_catalogs", resource="LARGE", path="nine.bin"),
    "size-40-mib": Case("a file of 40 MiB", "m03", "m03_catalogs", resource="LARGE", path="forty.bin"),
    "assessor-label-odd": Case(
        "slash, quotes and more in an assessor's label", "m04", "m04_MR1", assessor=ODD_LABEL
    ),
    "assessor-in-and-out": Case(
        "in and out resource of one label", "m04", "m04_MR1", assessor="m04_both", resource="DATA"
    ),
    "session-shared-without-subject": Case("shared from ALFA, its subject is not", "sub001", "borrowed_MR1"),
    "assessor-shared": Case(
        "an assessor shared along with its session",
        "sub001",
        "borrowed_MR1",
        assessor="sub001_MR1_freesurfer",
    ),
    "assessor-not-shared": Case(
        "an assessor of the shared session that itself is not shared: not in MESSY", "sub001", "borrowed_MR1"
    ),
    **{
        f"name: {what}": Case(what, "m05", "m05_names", "1", resource="NAMES", path=path)
        for what, path in NAMES.items()
    },
    **{
        f"hostile: {path}": Case("a hostile path", "m05", "m05_names", "1", resource="HOSTILE", path=path)
        for path in HOSTILE
    },
}


def add(make: Maker, alfa: Project) -> Project:
    """Add the project to the archive."""
    project = make.project(
        "MESSY",
        "Messy (sample data)",
        members=["demo"],
        access="protected",
        description="Every nasty case, named.",
    )
    subjects = {
        label: make.subject(project, label)
        for label in ("m00", "m01", "m02", "Ana María", "m03", "m04", "m05")
    }
    _people(subjects)
    _scans(make, subjects["m01"])
    _labels(make, subjects["m02"], subjects["Ana María"])
    _catalogs(make, subjects["m03"])
    _assessors(make, subjects["m04"])
    _names(make, subjects["m05"])
    for experiment in make.archive.experiments.values():
        if experiment.project == alfa.id and experiment.label in ("sub001_MR1", "sub001_MR1_freesurfer"):
            experiment.shares[project.id] = experiment.label.replace(
                "sub001_MR1", "borrowed" if experiment.is_assessor else "borrowed_MR1"
            )
    make.resource(project, "a b+c", {"project file.txt": b"project\n"})
    return project


def _people(subjects: dict[str, Subject]) -> None:
    """What is known of the subjects, as labs write it: not all of it is what its field is for."""
    known: dict[str, dict[str, str]] = {
        "m00": {"gender": "U", "age": ">89", "handedness": "U"},
        "m01": {"gender": "unknown", "dob": "1980-00-00", "handedness": "unknown"},
        "m02": {"gender": "F", "yob": "1971", "handedness": "ambidextrous", "education": "12"},
        "Ana María": {"gender": "female", "dob": "1969-12-31", "race": "=cmd|' /C calc'!A0"},
        "m03": {"gender": "male", "dob": "2023-01-01", "height": "180", "weight": "75.5"},
        "m04": {"gender": "male", "yob": "1980", "ethnicity": "español\tdoble\nlínea"},
    }
    for label, values in known.items():
        subject = subjects[label]
        subject.gender, subject.yob = values.pop("gender", ""), values.pop("yob", "")
        subject.fields |= values
    subjects["Ana María"].group = "señal & ruido"
    for label in ("m02", "m03"):
        subjects[label].custom = {"person": "00042", "Blood Type": "A+", "age": "unknown"}
    subjects["m04"].custom_fields = {
        "5f0c4a0e-8f4f-4d5e-9a3c-0d2f1c6b7a89": {"apoe": "e3/e4", "visits": 3, "consent": True},
        "notes": ["a", "b"],
    }


def _filled(make: Maker, session: Experiment, id: str, type: str, quality: str = "usable") -> Scan:
    """A scan with a resource whose one file says whose it is."""
    scan = make.scan(session, id, type, quality=quality)
    make.resource(
        scan, "NIFTI", {"which.txt": f"{session.id} scan {id} type {type}\n".encode()}, format="NIFTI"
    )
    return scan


def _scans(make: Maker, subject: Subject) -> None:
    session = make.experiment(subject, "m01_scans", date="2022-02-02")
    types = {
        "1": "T2",
        "2": "T1",
        "2-MR1": "T1",
        "5": "1",
        "6": "",
        "7": ODD_TYPE,
        "a b": "T1",
        "8/9": "T1",
        "10%#": "T1",
    }
    types |= {"0-OT1": "OT", "20": "T1", "20-T1": ""}
    for id, type in types.items():
        _filled(make, session, id, type)
    _filled(make, session, "30", "T1", quality="")
    session = make.experiment(subject, "m01_suffix", date="2022-02-03")
    _filled(make, session, "2-MR1", "T1")


def _labels(make: Maker, plain: Subject, accented: Subject) -> None:
    for subject, label in (
        (accented, "Ana María 1ª"),
        (accented, ODD_LABEL),
        (plain, "."),
        (plain, ".."),
        (plain, "RESOURCES"),
        (plain, ACCESSION_LABEL),
        (plain, "my_files_MR1"),
    ):
        session = make.experiment(subject, label, date="2022-03-03")
        _filled(make, session, "1", "T1")
        make.resource(session, "NOTES", {"which.txt": f"{session.id} notes\n".encode()})
    make.experiment(plain, "m02_empty", date="2022-03-04")
    make.resource(plain, "NOTES", {"subject.txt": b"of the subject beside a session RESOURCES\n"})
    make.resource(accented, "señal (1)", {"niño.txt": "año\n".encode()})


def _catalogs(make: Maker, subject: Subject) -> None:
    session = make.experiment(subject, "m03_catalogs", date="2022-04-04")
    scan = make.scan(session, "1", "T1")
    make.resource(
        scan, "NIFTI", {"first.txt": b"first NIFTI\n", "same.txt": b"same name, first\n"}, format="NIFTI"
    )
    make.resource(
        scan, "NIFTI", {"second.txt": b"second NIFTI\n", "same.txt": b"same name, second\n"}, format="NIFTI"
    )
    make.resource(scan, "", {"nameless.txt": b"resource without label\n"})
    make.resource(scan, "12345", {"digits.txt": b"resource 12345\n"})
    for label in (".", "..", ODD_LABEL, LONG_LABEL, "files"):
        make.resource(session, label, {"which.txt": f"resource {label}\n".encode()})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("inner/b.txt", (2022, 4, 4, 0, 0, 0)), b"inside the zip\n")
    make.resource(
        session,
        "TREE",
        {
            "1/2/3/4/5/6/deep.txt": b"six deep\n",
            "1/2/shallow.txt": b"two deep\n",
            "x.zip/inside.txt": b"in a folder called x.zip\n",
            "real.zip": packed.getvalue(),
            "empty.txt": b"",
        },
    )
    make.resource(session, "SHELL_KNOWN")
    make.resource(session, "SHELL_UNKNOWN", stats_known=False)
    make.resource(session, "UNCOUNTED", {"a.txt": b"a\n", "b.txt": b"bb\n"}, stats_known=False)
    data = noise("messy", 100_000)
    sizes = [
        make.entry("listed_too_big.bin", data, catalog_size=150_000),
        make.entry("listed_too_small.bin", data, catalog_size=60_000),
    ]
    make.resource(session, "SIZES", [*sizes, make.entry("right.bin", data)])
    digests = [
        make.entry("without.bin", data[:1000], digest=""),
        make.entry("wrong.bin", data[:2000], digest="0" * 32),
    ]
    make.resource(session, "DIGESTS", [*digests, make.entry("right.bin", data[:3000])])
    make.resource(
        session, "UNHASHED", [make.entry(f"{n}.bin", data[: 1000 * n], digest="") for n in (1, 2, 3)]
    )
    gone = make.entry("gone.bin", None, digest="d" * 32, catalog_size=12_345)
    make.resource(
        session, "GONE", [make.entry("before.bin", data[:10]), gone, make.entry("there.bin", data[:20])]
    )
    make.resource(
        session, "CLASH", [make.entry("a", b"the file a\n"), make.entry("a/b", b"in the folder a\n")]
    )
    twice = [make.entry("same.txt", b"twice\n"), make.entry("same.txt", b"twice\n")]
    make.resource(session, "TWICE", [*twice, make.entry("once.txt", b"once\n")])
    large = {
        "nine.bin": ComputedContent("messy/nine", 9 * MIB + 17),
        "forty.bin": ComputedContent("messy/forty", 40 * MIB),
    }
    make.resource(session, "LARGE", large)


def _assessors(make: Maker, subject: Subject) -> None:
    session = make.experiment(subject, "m04_MR1", date="2022-05-05", fields={"age": "-1"})
    _filled(make, session, "1", "T1")
    odd = make.assessor(session, ODD_LABEL, "xnat:qcManualAssessorData")
    make.resource(odd.out_resources, "DATA", {"odd.txt": b"assessor with an odd label\n"})
    both = make.assessor(session, "m04_both", "fs:fsData")
    for resources, word in (
        (both.in_resources, b"in"),
        (both.out_resources, b"out"),
        (both.resources, b"plain"),
    ):
        make.resource(resources, "DATA", {"which.txt": word + b"\n", word.decode() + ".txt": word + b"\n"})
    make.assessor(session, "m04_bare", "fs:fsData")
    average = make.reconstruction(session, "1 T1 (mean)", "average (1)", "T1")
    make.resource(average.in_resources, "NIFTI", {"which.txt": b"in\n"})
    make.resource(average.out_resources, "NIFTI", {"which.txt": b"out\n"})


def _names(make: Maker, subject: Subject) -> None:
    session = make.experiment(subject, "m05_names", date="2022-06-06")
    scan = make.scan(session, "1", "T1")
    make.resource(scan, "NAMES", {path: f"{what}\n".encode() for what, path in NAMES.items()})
    harmless = make.entry("harmless.txt", b"the one file of this resource with a decent path\n")
    make.resource(
        scan, "HOSTILE", [*(make.entry(path, f"hostile {path}\n".encode()) for path in HOSTILE), harmless]
    )
