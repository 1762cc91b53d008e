"""The archive the matrix reads, and what is true of it, worked out from the stand-in's own objects and never
from what the mount says.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from datetime import datetime

from xnatfs.demo.data import freesurfer
from xnatfs.demo.data import measurements as m
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.data.truth import TrueFile, files
from xnatfs.demo.model import Archive, ComputedContent

KIB, MIB = 1 << 10, 1 << 20
PROJECT = "P"
SESSIONS = ("S1", "S2", "S3")
SCAN = "/projects/P/subjects/s1/S1/SCANS/1-T1/DICOM"
R = "/projects/P/subjects/s1/S1/RESOURCES/R"
N = "/projects/P/subjects/s2/S2/RESOURCES/N"
LARGE, RANDOM, SMALL, PLAIN = f"{R}/large.nii", f"{R}/random.img", f"{R}/small.bin", f"{R}/plain.bin"
SLICES = 12
_STATS = "stats/aseg.stats"


def build() -> Archive:
    """Three sessions: a scan of slices, large and small files with and without digests, and what a table is
    made of.
    """
    archive = Archive(site="F")
    make = Maker(archive, datetime(2024, 1, 8, 9, 15))
    make.user("demo")
    project = make.project(PROJECT, PROJECT, members=["demo"])
    for number, label in enumerate(SESSIONS, 1):
        session = make.experiment(make.subject(project, f"s{number}"), label, date=f"2024-01-0{number}")
        stats = freesurfer.aseg_stats(session.id, "6", session.label)
        make.resource(session, "FREESURFER6", [make.entry(f"{session.label}/{_STATS}", stats)])
        if label == "S1":
            scan = make.scan(session, "1", "T1")
            slices = [
                make.entry(f"{one:04d}.dcm", ComputedContent(f"slice{one}", 20 * KIB))
                for one in range(1, SLICES + 1)
            ]
            make.resource(scan, "DICOM", slices, format="DICOM")
            listed = (
                ("large.nii", 9 * MIB, None),
                ("random.img", 6 * MIB, ""),
                ("small.bin", 200 * KIB, None),
                ("plain.bin", 200 * KIB, ""),
            )
            make.resource(
                session,
                "R",
                [make.entry(name, ComputedContent(name, size), digest=how) for name, size, how in listed],
            )
        elif label == "S2":
            make.resource(
                session,
                "N",
                [make.entry(f"n{one}.txt", ComputedContent(f"n{one}", KIB + one)) for one in range(5)],
            )
    return archive


def true_files(archive: Archive) -> dict[str, TrueFile]:
    """Path below the mountpoint -> file, of the room `projects`."""
    found = {}
    for one in files(archive, PROJECT, "demo"):
        part = f"SCANS/{one.scan}-{one.scan_type}" if one.scan else "RESOURCES"
        found[
            f"/projects/{PROJECT}/subjects/{one.subject}/{one.session}/{part}/{one.resource}/{one.path}"
        ] = one
    return found


def folders(archive: Archive) -> dict[str, dict[str, int | None]]:
    """Folder -> name -> size of the file, None for a folder."""
    found: dict[str, dict[str, int | None]] = defaultdict(dict)
    for path, one in true_files(archive).items():
        parts = path.split("/")
        for depth in range(2, len(parts)):
            found["/".join(parts[:depth])][parts[depth]] = one.size if depth == len(parts) - 1 else None
    return dict(found)


Cells = dict[tuple[str, str], str]


def aseg(archive: Archive) -> dict[str, Cells]:
    """Session's label -> (measurement, region) -> the text in its aseg.stats."""
    found: dict[str, Cells] = {}
    for one in archive.experiments.values():
        cells: Cells = {}
        for name, (value, unit) in m.aseg_header(one.id, "6").items():
            if name != "CortexVol":  # bx has it of aparc
                cells["Volume_mm3" if unit == "mm^3" else unit, name] = str(value)
        cells |= {
            (column, region): str(value)
            for region, row in m.aseg(one.id, "6").items()
            for column, value in row.items()
        }
        found[one.label] = cells
    return found


def cells_of(data: bytes) -> dict[str, Cells]:
    """The same from a table's bytes."""
    found: dict[str, Cells] = defaultdict(dict)
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    for row in rows:
        found[row["label"]][row["measurement"], row["region"]] = row["value"]
    assert sum(map(len, found.values())) == len(rows), "a row stands twice"
    return dict(found)
