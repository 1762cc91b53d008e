"""The sample data: the same at every build, readable by real readers, true to its own tables, complete in its
nasty cases.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from xnatfs.demo.data import build
from xnatfs.demo.data import measurements as m
from xnatfs.demo.data.draw import draw, gzip_stored
from xnatfs.demo.data.lab import by_label
from xnatfs.demo.data.messy import CASES, NAMES, Case
from xnatfs.demo.data.scale import large_nifti
from xnatfs.demo.data.truth import TrueFile, files, hostile, label_in
from xnatfs.demo.model import Archive, BytesContent, Experiment, Resource

PRINT = """
import hashlib
from xnatfs.demo.data import build
from tests.demo.test_data import outline
print(hashlib.sha256(outline(build("lab")).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def lab() -> Archive:
    return build("lab")


@pytest.fixture(scope="module")
def alfa(lab: Archive) -> list[TrueFile]:
    return files(lab, "ALFA", "demo")


def resources(archive: Archive) -> Iterator[tuple[str, Resource]]:
    """Every resource of an archive, with a name for its owner."""
    for project in archive.projects.values():
        yield from ((project.id, r) for r in project.resources)
    for subject in archive.subjects.values():
        yield from ((subject.id, r) for r in subject.resources)
    for experiment in archive.experiments.values():
        yield from (
            (experiment.id, r)
            for r in experiment.resources + experiment.in_resources + experiment.out_resources
        )
        for scan in experiment.scans:
            yield from ((f"{experiment.id}/{scan.id}", r) for r in scan.resources)
        for image in experiment.reconstructions:
            yield from ((f"{experiment.id}/{image.id}", r) for r in image.in_resources + image.out_resources)


def outline(archive: Archive) -> str:
    """Everything an archive says about itself, digests of the bytes included."""
    lines = [
        f"{p.id} {p.name} {p.access} {sorted(p.members)} {p.insert_date} {p.last_modified}"
        for p in archive.projects.values()
    ]
    lines += [
        f"{s.id} {s.label} {s.project} {s.shares} {s.insert_date} {s.last_modified}"
        for s in archive.subjects.values()
    ]
    for e in archive.experiments.values():
        lines.append(
            f"{e.id} {e.label} {e.project} {e.subject_id} {e.date} {e.time} {e.shares} {e.insert_date} "
            f"{e.type_modified} {e.fields}"
        )
        lines += [f"{s.id} {s.type} {s.number} {s.quality} {s.uid}" for s in e.scans]
    for owner, resource in resources(archive):
        lines.append(f"{owner} {resource.id} {resource.label} {resource.file_count} {resource.file_size}")
        lines += [
            f"{x.path!r} {x.listed_size} {x.listed_digest} {x.true_digest} {x.modified}"
            for x in resource.entries
        ]
    return "\n".join(lines)


def test_two_builds_are_the_same(lab: Archive) -> None:
    again = build("lab")
    assert outline(again) == outline(lab)
    assert again is not lab and again.experiments["DEMO_E00001"] is not lab.experiments["DEMO_E00001"]


def test_another_process_builds_the_same(lab: Archive) -> None:
    """No hash seed, no time zone, no date of today gets in."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "TZ": "Pacific/Auckland", "PYTHONPATH": str(root)}
    told = subprocess.run(
        [sys.executable, "-c", PRINT],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert told.stdout.strip() == hashlib.sha256(outline(lab).encode()).hexdigest()


def test_the_lab_is_small(lab: Archive) -> None:
    held = sum(
        e.content.size for _, r in resources(lab) for e in r.entries if isinstance(e.content, BytesContent)
    )
    assert held < 40 << 20


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no sample data 'nope'"):
        build("nope")
    with pytest.raises(ValueError, match="sessions"):
        build("lab", sessions=3)
    assert not build("empty").projects and build("empty").users["demo"].password == "demo"


def test_ids_labels_and_dates_look_like_xnats(lab: Archive) -> None:
    assert list(lab.projects) == ["ALFA", "DWI", "MESSY", "SECRET", "PIPES", "NORD", "BROKEN"]
    for experiment in lab.experiments.values():
        assert experiment.label != experiment.id
        assert experiment.insert_date.microsecond % 1000 == 0
        # As on XNAT: blank until a field of its own is edited; what moves is its concrete type's and its
        # subject's.
        assert experiment.last_modified is None
        moved, subject = experiment.type_modified, lab.subjects[experiment.subject_id].last_modified
        assert (
            moved is not None
            and subject is not None
            and experiment.insert_date <= moved <= subject <= lab.clock
        )
        if experiment.is_assessor:
            assert lab.experiments[experiment.session_id].is_image_session
    numbers = [r.id for _, r in resources(lab)] + [
        s.number for e in lab.experiments.values() for s in e.scans
    ]
    assert len(numbers) == len(set(numbers))
    for project in lab.projects:
        labels = [
            label for e in lab.experiments.values() if (label := label_in(e, project)) and not e.is_assessor
        ]
        assert len(labels) == len(set(labels))


def test_logins(lab: Archive) -> None:
    counts = {
        login: [len(files(lab, p, login)) for p in lab.projects]
        for login in ("admin", "demo", "outsider", "")
    }
    assert all(counts["admin"])
    assert counts["demo"] == [*counts["admin"][:3], 0, *counts["admin"][4:]]
    assert counts["outsider"] == counts[""] == [0, counts["admin"][1], 0, 0, 0, 0, 0]


def test_every_image_opens(alfa: list[TrueFile], lab: Archive) -> None:
    seen = 0
    for file in alfa + files(lab, "DWI", "demo"):
        data = file.read()
        assert (
            len(data) == file.size == file.listed_size
            and hashlib.md5(data).hexdigest() == file.digest == file.listed_digest
        )
        if file.path.endswith((".gz", ".mgz")):
            data = gzip.decompress(data)
        if file.path.endswith((".nii", ".nii.gz")):
            image: Any = nib.Nifti1Image.from_bytes(data)
            assert np.asanyarray(image.dataobj).max() > 0
            assert (
                len(data)
                == image.dataobj.offset + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
            )
            seen += 1
        elif file.path.endswith(".mgz"):
            assert nib.MGHImage.from_bytes(data).shape == (16, 16, 16)
        elif file.path.endswith(".dcm"):
            dataset = pydicom.dcmread(io.BytesIO(data))
            assert dataset.pixel_array.size
        elif file.path.endswith(".pdf"):
            start = int(data.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
            assert data.startswith(b"%PDF-") and data[start:].startswith(b"xref")
    assert seen > 40


def test_gzip_headers_carry_no_date(alfa: list[TrueFile]) -> None:
    for file in alfa:
        if file.path.endswith((".nii.gz", ".mgz")):
            assert file.read()[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@pytest.mark.parametrize("length", [0, 1, 65534, 65535, 65536, 131070, 200_001])
def test_stored_gzip(length: int) -> None:
    data = bytes(n % 251 for n in range(length))
    assert gzip.decompress(gzip_stored(data)) == data


def test_a_dicom_series_is_the_nifti_beside_it(alfa: list[TrueFile]) -> None:
    mine = [f for f in alfa if f.session == "007_MR1" and f.scan == "2"]
    slices = [pydicom.dcmread(io.BytesIO(f.read())) for f in mine if f.resource == "DICOM"]
    assert len(slices) == 40 and len({s.SOPInstanceUID for s in slices}) == 40
    assert len({s.SeriesInstanceUID for s in slices}) == len({s.StudyInstanceUID for s in slices}) == 1
    assert {str(s.PatientID) for s in slices} == {"007_MR1"} and {str(s.PatientName) for s in slices} == {
        "007"
    }
    assert [s.InstanceNumber for s in slices] == list(range(1, 41))
    steps = np.diff([float(s.ImagePositionPatient[2]) for s in slices])
    assert np.allclose(steps, 4.0)
    volume = np.stack([s.pixel_array.T[::-1, ::-1] for s in slices], axis=-1)
    nifti = next(f for f in mine if f.resource == "NIFTI" and f.path.endswith(".nii.gz"))
    assert np.array_equal(
        volume, np.asanyarray(nib.Nifti1Image.from_bytes(gzip.decompress(nifti.read())).dataobj)
    )


def test_series_of_different_sessions_do_not_mix(alfa: list[TrueFile]) -> None:
    firsts = [f for f in alfa if f.resource == "DICOM" and ".0001." in f.path]
    datasets = [pydicom.dcmread(io.BytesIO(f.read())) for f in firsts]
    assert len({d.SeriesInstanceUID for d in datasets}) == len(firsts) == 18
    assert len({d.StudyInstanceUID for d in datasets}) == 9


def test_diffusion_gradients(alfa: list[TrueFile]) -> None:
    mine = {f.path.rsplit(".", 1)[-1]: f.read() for f in alfa if f.session == "sub001_MR1" and f.scan == "4"}
    bval, bvec = np.loadtxt(io.BytesIO(mine["bval"])), np.loadtxt(io.BytesIO(mine["bvec"]))
    image = nib.Nifti1Image.from_bytes(gzip.decompress(mine["gz"]))
    assert image.shape[3] == len(bval) == bvec.shape[1] == 7
    assert np.allclose(np.linalg.norm(bvec, axis=0)[1:], 1, atol=1e-4)


def test_what_sessions_have(lab: Archive) -> None:
    have = {
        e.label: {r.label for r in e.resources}
        for e in lab.experiments.values()
        if e.project == "ALFA" and not e.is_assessor
    }
    assert [s for s, r in have.items() if "FREESURFER7" in r and "FREESURFER6" not in r] == ["sub003_MR1"]
    assert sum("FREESURFER6" in r for r in have.values()) == 7
    assert by_label(lab, "ALFA", "sub004_MR1").date == ""
    assert {s.quality for s in by_label(lab, "ALFA", "sub003_MR2").scans} == {"usable", "unusable"}
    assert by_label(lab, "ALFA", "sub002_PET1").xsi_type == "xnat:petSessionData"
    assert not by_label(lab, "ALFA", "sub005_NP1").is_image_session
    assert label_in(by_label(lab, "ALFA", "sub002_MR1"), "DWI") == "dwi02_scan"


def text_of(alfa: list[TrueFile], session: str, resource: str, ending: str) -> str:
    return (
        next(f for f in alfa if f.session == session and f.resource == resource and f.path.endswith(ending))
        .read()
        .decode()
    )


@pytest.mark.parametrize("version", ["6", "7"])
def test_freesurfer_text_says_what_the_table_says(lab: Archive, alfa: list[TrueFile], version: str) -> None:
    session = by_label(lab, "ALFA", "sub001_MR1")
    resource = f"FREESURFER{version}"
    lines = text_of(alfa, session.label, resource, "aseg.stats").splitlines()
    measures = [line[len("# Measure ") :].split(", ") for line in lines if line.startswith("# Measure ")]
    assert {name: (Decimal(value), unit) for _, name, _, value, unit in measures} == m.aseg_header(
        session.id, version
    )
    assert len(measures) == (22 if version == "6" else 20)
    rows = [line.split() for line in lines if not line.startswith("#")]
    table = m.aseg(session.id, version)
    assert len(rows) == len(table) == 45 and all(len(row) == 10 for row in rows)
    for row in rows:
        name = row.pop(4)
        assert [Decimal(value) for value in row] == [table[name][column] for column in m.ASEG_COLUMNS]
        assert row == [str(table[name][column]) for column in m.ASEG_COLUMNS]
    for side in ("lh", "rh"):
        lines = text_of(alfa, session.label, resource, f"{side}.aparc.stats").splitlines()
        rows = [line.split() for line in lines if not line.startswith("#")]
        assert {row[0]: row[1:] for row in rows} == {
            region: [str(value) for value in values.values()]
            for region, values in m.aparc(session.id, version, side).items()
        }
        assert any("CortexVol, Total" in line for line in lines) == (
            version == "7"
        )  # version 6 lacks the comma


def test_volume_files_say_what_the_table_says(lab: Archive, alfa: list[TrueFile]) -> None:
    session = by_label(lab, "ALFA", "007_MR1")

    def pairs(resource: str, ending: str) -> dict[str, str]:
        text = text_of(alfa, session.label, resource, ending)
        assert text.endswith("\n")
        return dict(line.split(" ", 1) for line in text.splitlines())

    def texts(values: dict[str, Decimal], prefix: str = "") -> dict[str, str]:
        return {prefix + name: str(value) for name, value in values.items()}

    for side in ("lh", "rh"):
        assert pairs("FREESURFER6", f"{side}.hippoSfVolumes-T1.v10.txt") == texts(
            m.hippocampus(session.id, "v10", side)
        )
        assert pairs("FREESURFER7", f"{side}.hippoSfVolumes-T1.v21.txt") == texts(
            m.hippocampus(session.id, "v21", side)
        )
        assert pairs("FREESURFER7", f"{side}.amygNucVolumes-T1.v21.txt") == texts(
            m.amygdala(session.id, side)
        )
    assert pairs("FREESURFER7_EXTRAS", "brainstemSsVolumes.v12.txt") == texts(m.brainstem(session.id))
    thalamus = texts(m.thalamus(session.id, "left"), "Left-") | texts(
        m.thalamus(session.id, "right"), "Right-"
    )
    assert (
        pairs("FREESURFER7_EXTRAS", "ThalamicNuclei.v12.T1.volumes.txt") == thalamus and len(thalamus) == 52
    )
    header, values = (
        line.split(",") for line in text_of(alfa, session.label, "FREESURFER7_EXTRAS", ".csv").splitlines()
    )
    found = dict(zip(header, values, strict=True))
    for side in ("left", "right"):
        for name, value in m.hypothalamus(session.id, side).items():
            assert found[f"whole {side}" if name == "whole" else f"{side} {name}"] == str(value)
        for mode in m.ASHS_MODES:
            rows = [
                line.split(" ")
                for line in text_of(alfa, session.label, "ASHS", f"_{side}_{mode}_volumes.txt").splitlines()
            ]
            assert rows == [
                ["007", side, r, str(n), str(v)] for r, (n, v) in m.ashs(session.id, side, mode).items()
            ]
    assert text_of(alfa, session.label, "ASHS", "_icv.txt") == f"007 {m.ashs_icv(session.id)}\n"
    assert float(m.ashs_icv(session.id)) == pytest.approx(float(m.etiv(session.id)), rel=1e-5)


def test_tissue_maps_hold_the_true_volumes(lab: Archive, alfa: list[TrueFile]) -> None:
    session = by_label(lab, "ALFA", "sub002_MR1")
    truth = m.tissue_volumes(session.id)
    for name in ("c1", "c2", "c3"):
        file = next(
            f
            for f in alfa
            if f.session == session.label and f.resource == "SPM12_SEGMENT" and f.path.startswith(name)
        )
        image = nib.Nifti1Image.from_bytes(gzip.decompress(file.read()))
        assert float(np.sum(image.dataobj) * np.prod(image.header["pixdim"][1:4])) == truth[name]


def test_draw_is_fixed() -> None:
    """Pinned: a changed value means that all sample data changed."""
    assert draw("DEMO_E00001/eTIV", 1_250_000, 1_750_000, 6) == m.etiv("DEMO_E00001")
    assert str(m.etiv("DEMO_E00001")) == "1616657.700115"
    assert len({draw(f"k{n}", 0, 10, 3) for n in range(100)}) > 95
    assert all(Decimal("1.50") <= draw(f"k{n}", 1.5, 2.5, 2) <= Decimal("2.50") for n in range(200))


def find(archive: Archive, case: Case) -> list[object]:
    """What lies where a case says it does, in project MESSY."""
    if not case.session:
        return [s for s in archive.subjects.values() if label_in(s, "MESSY") == case.subject]
    sessions = [
        e for e in archive.experiments.values() if label_in(e, "MESSY") == case.session and not e.is_assessor
    ]
    sessions = [e for e in sessions if archive.subjects[e.subject_id].label == case.subject]
    if case.scan:
        owners: list[object] = [s for e in sessions for s in e.scans if s.id == case.scan]
    elif case.assessor:
        ids = {e.id for e in sessions}
        there = [
            a
            for a in archive.experiments.values()
            if a.session_id in ids and label_in(a, "MESSY") is not None
        ]
        owners = [a for a in there if a.label == case.assessor]
    else:
        owners = list(sessions)
    if case.resource is None:
        return owners
    found: list[Resource] = []
    for owner in owners:
        lists = [owner.resources]  # type: ignore[attr-defined]
        if isinstance(owner, Experiment):
            lists += [owner.in_resources, owner.out_resources]
        found += [r for some in lists for r in some if r.label == case.resource]
    return [e for r in found for e in r.entries if e.path == case.path] if case.path else list(found)


@pytest.mark.parametrize("name", CASES)
def test_case_is_there(lab: Archive, name: str) -> None:
    case = CASES[name]
    expected = {"resource-label-twice": 2, "path-twice": 2, "assessor-in-and-out": 3}.get(name, 1)
    assert len(find(lab, case)) == expected, case.what


def test_cases_are_what_they_say(lab: Archive) -> None:
    def entry(name: str):  # type: ignore[no-untyped-def]
        return find(lab, CASES[name])[0]

    assert entry("size-too-big").listed_size > entry("size-too-big").content.size
    assert entry("size-too-small").listed_size < entry("size-too-small").content.size
    assert entry("digest-missing").listed_digest == "" and entry("digest-missing").true_digest
    assert entry("digest-wrong").listed_digest not in ("", entry("digest-wrong").true_digest)
    assert {e.listed_digest for e in entry("digests-missing").entries} == {""}
    assert entry("file-gone").content is None and entry("file-gone").listed_size
    assert entry("file-empty").content.size == 0
    assert (
        entry("resource-empty-known").file_count == "0" and entry("resource-empty-unknown").file_count == ""
    )
    assert (
        entry("resource-stats-unknown").file_size == "" and len(entry("resource-stats-unknown").entries) == 2
    )
    assert entry("size-9-mib").content.size > 8 << 20 and entry("size-40-mib").content.size == 40 << 20
    with zipfile.ZipFile(io.BytesIO(entry("zip-file").content.data)) as packed:
        assert packed.read("inner/b.txt") == b"inside the zip\n"
    assert len(NAMES["a name of 255 bytes"].encode()) == 255
    nfc, nfd = NAMES["an accent in one code point (NFC)"], NAMES["the same accent in two code points (NFD)"]
    assert nfc != nfd and len(nfc) + 1 == len(nfd)
    assert CASES["session-label-is-accession-id"].session in lab.experiments
    scans = {s.id: s.type for s in by_label(lab, "MESSY", "m01_scans").scans}
    assert scans["5"] == "1" and scans["6"] == "" and f"20-{scans['20']}" == "20-T1" and scans["20-T1"] == ""


def test_truth_of_the_messy_project(lab: Archive) -> None:
    truth = files(lab, "MESSY", "demo")
    assert len({(f.resource_id, f.path) for f in truth}) == len(
        truth
    )  # the path that is listed twice stands once
    assert {f.path for f in truth if f.gone} == {"gone.bin"}
    assert {f.path for f in truth if f.hostile} == {
        c.path for n, c in CASES.items() if n.startswith("hostile: ")
    }
    # Its primary label: that of its share is told by no list.
    assert {f.assessor for f in truth if f.session == "borrowed_MR1" and f.kind == "assessor"} == {
        "sub001_MR1_freesurfer"
    }
    assert {f.subject for f in truth if f.session == "borrowed_MR1"} == {"sub001"}
    assert {f.direction for f in truth if f.assessor == "m04_both"} == {"", "in", "out"}
    for file in truth:
        if not file.gone and file.size < 1 << 20:
            assert hashlib.md5(file.read()).hexdigest() == file.digest


def test_truth_counts_shared_sessions_in_both_projects(lab: Archive, alfa: list[TrueFile]) -> None:
    here = {(f.resource_id, f.path) for f in alfa if f.session == "sub002_MR1"}
    there = {
        (f.resource_id, f.path)
        for f in files(lab, "DWI", "demo")
        if f.session == "dwi02_scan" and f.subject == "dwi02"
    }
    assert here and here == there


def test_truth_is_the_whole_project(lab: Archive, alfa: list[TrueFile]) -> None:
    owned = (
        {p.id for p in lab.projects.values()} | {s.id for s in lab.subjects.values()} | set(lab.experiments)
    )
    assert owned
    own = {"ALFA"} | {s.id for s in lab.subjects.values() if s.project == "ALFA"}
    own |= {e.id for e in lab.experiments.values() if e.project == "ALFA"}
    listed = sum(len(r.entries) for owner, r in resources(lab) if owner.split("/")[0] in own)
    assert len(alfa) == listed
    assert {f.kind for f in alfa} == {"project", "subject", "session", "scan", "assessor", "reconstruction"}
    assert all(f.uri.startswith("/data/") and " " not in f.uri for f in alfa)


@pytest.mark.parametrize("path", ["a", "a/b", "..a", "a..", "...", "a/.b"])
def test_harmless_paths(path: str) -> None:
    assert not hostile(path)


def test_scale_builds_quickly_and_lazily() -> None:
    started = time.monotonic()
    archive = build("scale", sessions=1000, scans=8, files=20, sessions_per_subject=2)
    assert time.monotonic() - started < 20
    assert len(archive.experiments) == 1000 and len(archive.subjects) == 500
    tracemalloc.start()
    try:
        assert sum(int(r.file_count) for _, r in resources(archive)) == 160_000
        assert sum(int(r.file_size) for _, r in resources(archive)) == 160_000 * 150_000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20  # no catalog was made for that
    finally:
        tracemalloc.stop()
    resource = archive.experiments["DEMO_E00007"].scans[2].resources[0]
    assert resource.label == "DICOM" and [e.path for e in resource.entries][:2] == ["0001.dcm", "0002.dcm"]
    assert len({e.listed_digest for e in resource.entries}) == 20
    assert str(len(resource.entries)) == resource.file_count
    del resource.entries[0]
    assert resource.file_count == "19" and resource.file_size == str(19 * 150_000)


def test_scale_options() -> None:
    archive = build(
        "scale",
        sessions=2,
        scans=1,
        files=3,
        file_size=10,
        resource="NIFTI",
        digests=False,
        big_files={"one.nii": 1 << 30},
        flat=20_000,
    )
    assert {e.listed_digest for e in archive.experiments["DEMO_E00001"].scans[0].resources[0].entries} == {""}
    assert set(archive.projects) == {"SCALE", "BIG", "FLAT"}
    big = files(archive, "BIG", "demo")
    assert [f.size for f in big] == [1 << 30] and big[0].listed_digest == ""
    assert len(files(archive, "FLAT", "demo")) == 20_000


@pytest.mark.parametrize("size", [400, 5000, 3 << 20, (9 << 20) + 77])
def test_large_nifti_opens(size: int, tmp_path: Path) -> None:
    content = large_nifti("key", size)
    data = content.read(0, size)
    assert len(data) == content.size == size
    assert (
        content.read(100, 1000) == data[100:1100]
        and content.read(size - 5, 99) == data[-5:]
        and content.read(size, 1) == b""
    )
    path = tmp_path / "x.nii"
    path.write_bytes(data)
    image: Any = nib.load(path)
    assert int(np.prod(image.shape)) <= size - 352
    assert np.asanyarray(image.dataobj).tobytes(order="F") == data[352 : 352 + int(np.prod(image.shape))]
