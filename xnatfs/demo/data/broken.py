"""Project BROKEN of the `lab` data: results that are damaged, or that a spreadsheet would misread, each with
a name.

Used by `lab.py`; `CASES` says what each session is, by its label. A session has FREESURFER6 and ASHS with the
numbers of `measurements.py` but for what its case says, so that a table can be compared with them row by row.
"""

from __future__ import annotations

import re

from xnatfs.demo.data import freesurfer, pipelines
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.data.mr_outputs import csv
from xnatfs.demo.model import Experiment, Project

Files = dict[str, bytes]

CASES = {
    "b_healthy": "nothing is wrong here",
    "b_truncated": "aseg.stats, lh.aparc.stats, a hippocampus and ASHS's left volumes end in the middle "
    "of a line",
    "b_html": "aseg.stats and ASHS's icv.txt are HTML pages: somebody uploaded a log-in page",
    "b_empty": "aseg.stats, lh.aparc.stats, a hippocampus and ASHS's icv.txt are 0 bytes long",
    "b_nrows": "aseg.stats says NRows 45 and has 40 rows",
    "b_hemisphere": "nothing of the right hemisphere: no rh.*, no right volumes of ASHS",
    "b_formula": "text cells that a spreadsheet would run, in BAMOS_ARTERIAL and in a structure of "
    "aseg.stats",
    "b_nan": "nan, NaN and inf instead of numbers in aseg.stats and in a hippocampus",
    "b_twice": "two subjects in one FREESURFER6, so two aseg.stats",
    "b_gone": "aseg.stats is listed, and is gone from the disk",
    "b_version": "what lies in FREESURFER6 was made by version 7",
    "b_binary": "aseg.stats has bytes that are no UTF-8",
    "007": "nothing is wrong, but subject and session are called 007",
    "1E5": "nothing is wrong, but subject and session are called 1E5",
}
FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(1,1)", '=HYPERLINK("http://127.0.0.1/")', "\tTab")
HTML = (
    b"<!DOCTYPE html>\n<html><head><title>XNAT</title></head><body><form "
    b'action="/j_spring_security_check">Log in</form></body></html>\n'
)


def add(make: Maker) -> Project:
    """Add the project to the archive."""
    project = make.project(
        "BROKEN",
        "Damaged results (sample data)",
        members=["demo"],
        description="Damaged results, each named.",
    )
    for number, label in enumerate(CASES):
        make.wait(minutes=30)
        subject = make.subject(project, label if label[0].isdigit() else f"s{label[1:]}")
        session = make.experiment(subject, label, date=f"2022-07-{number + 1:02d}", time="10:00:00")
        run = freesurfer.subject_directory(session.id, "7" if label == "b_version" else "6", label)
        files = {path: data for path, data in run.items() if path.endswith((".stats", ".txt", ".done"))}
        ashs = pipelines.ashs_files(session.id, label)
        _damage(label, files, ashs, session)
        if label == "b_formula":
            rows = [[depth, region, 1, "12.5"] for depth, region in enumerate(FORMULAS)]
            make.resource(
                session,
                "BAMOS_ARTERIAL",
                {"bamos_arterial_stats.csv": csv(["depth", "region", "n", "volume"], rows)},
            )
        resource = make.resource(session, "FREESURFER6", files)
        if label == "b_gone":
            (entry,) = (entry for entry in resource.entries if entry.name == "aseg.stats")
            entry.digest, entry.catalog_size, entry.content = entry.true_digest, entry.listed_size, None
        make.resource(session, "ASHS", ashs)
    return project


def _damage(label: str, files: Files, ashs: Files, session: Experiment) -> None:
    """Do to the files what `CASES` says."""
    aseg, aparc, hippo = (
        f"{label}/stats/aseg.stats",
        f"{label}/stats/lh.aparc.stats",
        f"{label}/mri/lh.hippoSfVolumes-T1.v10.txt",
    )
    icv, left = f"final/{label}_icv.txt", f"final/{label}_left_corr_nogray_volumes.txt"
    if label == "b_truncated":
        for path in (aseg, aparc, hippo):
            files[path] = files[path][: len(files[path]) * 3 // 4 - 3]
        ashs[left] = ashs[left][:-40]
    elif label == "b_html":
        files[aseg] = ashs[icv] = HTML
    elif label == "b_empty":
        files[aseg] = files[aparc] = files[hippo] = ashs[icv] = b""
    elif label == "b_nrows":
        files[aseg] = b"".join(files[aseg].splitlines(keepends=True)[:-5])
    elif label == "b_hemisphere":
        for group, gone in ((files, "/rh."), (ashs, "_right_")):
            for path in [path for path in group if gone in path]:
                del group[path]
    elif label == "b_formula":
        files[aseg] = files[aseg].replace(b"Left-Caudate ", b"=1+1         ")
    elif label == "b_nan":
        files[aseg] = re.sub(rb"(Left-Putamen +)[\d.]+", rb"\1nan", files[aseg])
        files[aseg] = re.sub(rb"(Right-Putamen +)[\d.]+", rb"\1inf", files[aseg])
        files[hippo] = re.sub(rb"(fimbria) [\d.]+", rb"\1 NaN", files[hippo])
    elif label == "b_twice":
        files |= {
            path.replace(label, "another", 1): data
            for path, data in freesurfer.subject_directory(f"{session.id}/another", "6", label).items()
            if path.endswith("aseg.stats")
        }
    elif label == "b_binary":
        files[aseg] = files[aseg].replace(b"# hostname node01", b"# hostname n\xf8de\xff\x00")
