"""The results of pipelines in PIPES, NORD, BROKEN and the cohort: their files say what the truth says, in a
syntax that readers read.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
from decimal import Decimal
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.support import lab_archive
from xnatfs.demo.data import broken, build, cohort, nord, pipes
from xnatfs.demo.data import derived as d
from xnatfs.demo.data import measurements as m
from xnatfs.demo.data import tracers as t
from xnatfs.demo.data.draw import gzip_runs
from xnatfs.demo.data.lab import by_label
from xnatfs.demo.data.truth import TrueFile, files
from xnatfs.demo.data.workbook import xlsx
from xnatfs.demo.model import Archive, LazyEntries


@pytest.fixture(scope="module")
def lab() -> Archive:
    return lab_archive()


class Project:
    """The files of a project, found by session, resource and the end of the path."""

    def __init__(self, archive: Archive, name: str) -> None:
        self.archive, self.name, self.files = archive, name, files(archive, name, "demo")

    def id(self, session: str) -> str:
        return by_label(self.archive, self.name, session).id

    def sessions(self, resource: str) -> list[str]:
        return sorted({str(f.session) for f in self.files if f.resource == resource})

    def one(self, session: str, resource: str, ending: str) -> TrueFile:
        (file,) = (
            f
            for f in self.files
            if f.session == session and f.resource == resource and f.path.endswith(ending)
        )
        return file

    def report(self, session: str, validator: str) -> dict[str, Any]:
        (file,) = (
            f for f in self.files if f.session == session and f.path == f"{validator}_{self.id(session)}.json"
        )
        found: dict[str, Any] = json.loads(file.read())
        return found

    def text(self, session: str, resource: str, ending: str) -> str:
        return self.one(session, resource, ending).read().decode()

    def rows(self, session: str, resource: str, ending: str, separator: str = ",") -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.text(session, resource, ending)), delimiter=separator))

    def image(self, session: str, resource: str, ending: str) -> Any:
        return nib.Nifti1Image.from_bytes(gzip.decompress(self.one(session, resource, ending).read()))


@pytest.fixture(scope="module")
def pipes_files(lab: Archive) -> Project:
    return Project(lab, "PIPES")


@pytest.fixture(scope="module")
def nord_files(lab: Archive) -> Project:
    return Project(lab, "NORD")


def texts(rows: list[d.Row]) -> list[dict[str, str]]:
    return [{name: str(value) for name, value in row.items()} for row in rows]


def volume(image: Any) -> float:
    return float(np.sum(np.asanyarray(image.dataobj)) * np.prod(image.header["pixdim"][1:4].astype(float)))


def test_every_pipeline_is_missing_in_one_mr_session(pipes_files: Project) -> None:
    everyone = [f"{label}_MR1" for label, _, _ in pipes.SUBJECTS]
    for resource in pipes.MR:
        assert len(pipes_files.sessions(resource)) == (1 if resource == "DWIFSLPREPROC_DTIFIT" else 3)
        assert set(pipes_files.sessions(resource)) < set(everyone)
    for resource in pipes.PET:
        assert pipes_files.sessions(resource) == sorted(
            s for s, (_, resources) in pipes.PET_SESSIONS.items() if resource in resources
        )


def test_every_resource_has_the_report_of_its_validator(pipes_files: Project) -> None:
    for resource, (validator, _) in (pipes.MR | pipes.PET).items():
        for session in pipes_files.sessions(resource):
            id = pipes_files.id(session)
            report = pipes_files.report(session, validator)
            assert {test: report[test]["has_passed"] for test in m.VALIDATOR_TESTS[validator]} == m.validator(
                id, validator
            )
            assert pipes_files.one(session, "BBRC_VALIDATOR", f"{validator}_{id}.pdf")


def test_pet_sessions_name_their_mr_session(pipes_files: Project) -> None:
    for label in pipes.PET_SESSIONS:
        found = [
            f
            for f in pipes_files.files
            if f.session == label and f.path.endswith(".json") and "PetSessionValidator" in f.path
        ]
        assert bool(found) == (label in pipes.PET_TRUTH)
        if found:
            test = json.loads(found[0].read())["HasUsableT1"]
            mri = pipes.mri_of(
                by_label(pipes_files.archive, "PIPES", f"{label[:3]}_MR1"), pipes.PET_TRUTH[label]
            )
            assert test == {"has_passed": mri is not None, "data": [mri] if mri else []}


def test_every_image_opens(pipes_files: Project, nord_files: Project) -> None:
    seen = 0
    for file in pipes_files.files + nord_files.files:
        if file.path.endswith(".nii.gz"):
            data = gzip.decompress(file.read())
            image: Any = nib.Nifti1Image.from_bytes(data)
            assert np.asanyarray(image.dataobj).max() > 0, file.path
            assert (
                len(data)
                == image.dataobj.offset + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
            )
            seen += 1
    assert seen > 200


def test_tissue_maps(pipes_files: Project, nord_files: Project) -> None:
    for session in pipes_files.sessions("CAT12_SEGMENT"):
        found = {
            f"p{n}": volume(pipes_files.image(session, "CAT12_SEGMENT", f"mri/p{n}{session}_T1.nii.gz"))
            for n in (1, 2, 3)
        }
        assert found == d.cat12_volumes(pipes_files.id(session))
    for resource in ("FSL_ANAT", "BASIL", "TE_ASL", "3DASL_QUANTIFICATION"):
        for session in pipes_files.sessions(resource):
            names = [f"T1_fast_pve_{n}" for n in (0, 1, 2)]
            found = {name: volume(pipes_files.image(session, resource, f"{name}.nii.gz")) for name in names}
            assert found == d.pve_volumes(pipes_files.id(session), resource)
    for session in nord_files.sessions("SEG"):
        found = {
            f"c{n}": volume(nord_files.image(session, "SEG", f"spm_seg/c{n}MPRAGE.nii.gz")) for n in (1, 2, 3)
        }
        assert found == m.tissue_volumes(nord_files.id(session))


def test_subcortical_labels(pipes_files: Project) -> None:
    for session in pipes_files.sessions("FSL_ANAT"):
        image = pipes_files.image(session, "FSL_ANAT", "T1_subcort_seg.nii.gz")
        labels, counts = np.unique(np.asanyarray(image.dataobj), return_counts=True)
        found = dict(zip(labels.tolist(), (counts * 8.0).tolist(), strict=True))
        truth = d.subcortical_volumes(pipes_files.id(session))
        assert {d.SUBCORTICAL[name][0]: value for name, value in truth.items()} == {
            label: v for label, v in found.items() if label
        }


def test_lesions(pipes_files: Project) -> None:
    for session in pipes_files.sessions("BAMOS"):
        id = pipes_files.id(session)
        lesion, label, layers, lobes = (
            np.asanyarray(pipes_files.image(session, "BAMOS", f"{name}.nii.gz").dataobj)
            for name in (f"CorrectLesion_{id}", f"Lesion_{id}_corr", f"Layers_{id}", f"Lobes_{id}")
        )
        assert float(lesion[lesion >= 0.5].sum() * 1.5) == float(d.bamos_volume(id))
        for (depth, region), (n, size) in d.bamos_stats(id).items():
            place = (np.minimum(layers, 4) == depth) & (lobes == d.LOBES.index(region))
            values = lesion[place]
            assert (len(np.unique(label[place])), float(values[values >= 0.5].sum() * 1.5)) == (
                n,
                float(size),
            )


def test_tables_of_text(pipes_files: Project) -> None:
    p = pipes_files
    for session in p.sessions("ALPS"):
        (row,) = p.rows(session, "ALPS", "alps.stat/alps.csv")
        assert {name: row[name] for name in list(row)[2:]} == {
            name: str(value) for name, value in d.alps(p.id(session)).items()
        }
        rows = p.rows(session, "ALPS", "fa+md_alps.csv")
        assert [{name: row[name] for name in list(row)[2:]} for row in rows] == texts(
            d.alps_diffusion(p.id(session))
        )
    for session in p.sessions("BAMOS_ARTERIAL"):
        assert p.rows(session, "BAMOS_ARTERIAL", "bamos_arterial_stats.csv") == texts(
            d.bamos_arterial(p.id(session))
        )
    for session in p.sessions("QSMXT"):
        rows = p.rows(session, "QSMXT", "qsm_stats.csv")
        expected = {
            roi: {name: str(value) for name, value in row.items()}
            for roi, row in d.qsmxt(p.id(session)).items()
        }
        assert {row["roi"]: {name: row[name] for name in list(row)[2:]} for row in rows} == expected
        assert {row["subject"] for row in rows} == {f"sub-{session[:3]}_ses-MR1"}
    for session in p.sessions("PYMENT"):
        (row,) = p.rows(session, "PYMENT", f"{p.id(session)}_prediction.csv")
        assert row == {
            "id": p.id(session),
            **{name: str(value) for name, value in d.pyment(p.id(session)).items()},
        }
    for session in p.sessions("3DASL_QUANTIFICATION"):
        assert p.rows(session, "3DASL_QUANTIFICATION", "quantification_results.csv") == texts(
            t.asl3d(p.id(session))
        )
    for resource, ending, truth in (
        ("FDG_QUANTIFICATION2", "quantification_results.csv", lambda id: t.pet(id, "fdg")),
        ("FTM_QUANTIFICATION2", "quantification_results.csv", lambda id: t.pet(id, "ftm")),
        ("TAU_QUANTIFICATION", "tau_quantification_results.csv", t.tau),
        ("CENTAURZ", "centaurz_quantification_results.csv", t.centaur),
    ):
        for session in p.sessions(resource):
            assert p.rows(session, resource, ending) == texts(truth(p.id(session)))


def test_perfusion(pipes_files: Project) -> None:
    p = pipes_files
    for resource, count, analyses in (("BASIL", 12, t.BASIL_REGIONS), ("TE_ASL", 24, t.TEASL_REGIONS)):
        for session in p.sessions(resource):
            truth = t.perfusion(p.id(session), resource)
            found = {
                f.path: f.read().decode()
                for f in p.files
                if f.session == session and f.resource == resource and f.path.endswith(".txt")
            }
            assert (
                found == {path: f"{value}\n" for path, (_, _, value) in truth.items()} and len(truth) == count
            )
            for analysis, ending in analyses.items():
                rows = {
                    row.pop("name"): row for row in p.rows(session, resource, f"region_analysis{ending}.csv")
                }
                expected = {
                    name: {c: str(v) for c, v in row.items()}
                    for name, row in t.regions(p.id(session), resource, analysis).items()
                }
                assert rows == expected
            image = p.image(session, resource, "std_space/perfusion_calib.nii.gz")
            assert image.shape == (91, 109, 91)
            assert float(np.asanyarray(image.dataobj).mean()) == pytest.approx(
                t.uniform(p.id(session), f"{resource}/perfusion_calib")
            )


def test_diffusivity_on_the_surface(pipes_files: Project) -> None:
    for session in pipes_files.sessions("DONSURF"):
        for side in ("lh", "rh"):
            lines = pipes_files.text(session, "DONSURF", f"GM-MD/stats/{side}.aparc.stats").splitlines()
            rows = {row[0]: row[1:] for row in (line.split() for line in lines if not line.startswith("#"))}
            table = d.donsurf(pipes_files.id(session), "GM-MD", side)
            assert rows == {
                region: [str(row[column]) for column in m.APARC_COLUMNS] for region, row in table.items()
            }


def sheet(data: bytes) -> list[list[str]]:
    """The cells of a workbook's sheet as text."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        text = archive.read("xl/worksheets/sheet1.xml").decode()
    rows = re.findall(r"<row>(.*?)</row>", text)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<c/>|<c[ >].*?</c>", row)] for row in rows]


def test_workbooks(pipes_files: Project) -> None:
    for session in pipes_files.sessions("LCMODEL"):
        id = pipes_files.id(session)
        for ending, truth in (
            ("_lcmodel.xlsx", d.lcmodel(id)),
            ("_mrs_tissue_corr.xlsx", d.lcmodel_correction(id)),
        ):
            header, *rows = sheet(pipes_files.one(session, "LCMODEL", ending).read())
            assert header == ["id", "subject", *truth[0]]
            assert rows == [[id, session[:3], *map(str, row.values())] for row in truth]


def test_a_workbook_opens_in_openpyxl() -> None:
    openpyxl = pytest.importorskip("openpyxl")
    data = xlsx(["a", "b<"], [["=1+1", Decimal("1.50")], [None, -3]])
    assert list(openpyxl.load_workbook(io.BytesIO(data)).active.values) == [
        ("a", "b<"),
        ("=1+1", 1.5),
        (None, -3),
    ]
    assert data == xlsx(["a", "b<"], [["=1+1", Decimal("1.50")], [None, -3]])


def test_matrices(pipes_files: Project) -> None:
    for session in pipes_files.sessions("MRTRIX3"):
        rows = list(csv.reader(io.StringIO(pipes_files.text(session, "MRTRIX3", "connectome.csv"))))
        assert rows == [[str(v) for v in row] for row in d.connectome(pipes_files.id(session))]
        assert len(rows) == 84 and all(rows[a][b] == rows[b][a] for a in range(84) for b in range(a))
    for session in pipes_files.sessions("XCP_D"):
        rows = list(csv.reader(io.StringIO(pipes_files.text(session, "XCP_D", "conmat.tsv")), delimiter="\t"))
        assert rows[0] == ["Node", *d.NODES] and [row[0] for row in rows[1:]] == list(d.NODES)
        assert [row[1:] for row in rows[1:]] == [
            [str(v) for v in row] for row in d.correlations(pipes_files.id(session))
        ]
        rows = list(
            csv.reader(io.StringIO(pipes_files.text(session, "XCP_D", "timeseries.tsv")), delimiter="\t")
        )
        assert rows == [
            list(d.NODES),
            *([str(v) for v in row] for row in d.timeseries(pipes_files.id(session))),
        ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a",
        b"\0" * 258,
        b"\xff" * 2000 + b"ab" + b"\x90" * 11,
        bytes(range(256)) * 3,
        b"\0" * 259 + b"\1" * 269,
    ],
)
def test_gzip_of_runs(data: bytes) -> None:
    assert gzip.decompress(gzip_runs(data)) == data


def test_quirks_of_the_other_laboratory(nord_files: Project) -> None:
    found = {
        what: nord_files.one(quirk.session, quirk.resource, quirk.path).read()
        for what, quirk in nord.QUIRKS.items()
    }
    old = found["aseg.stats of FreeSurfer 5: ICV instead of eTIV"].decode()
    measures = {
        line.split(", ")[1]: Decimal(line.split(", ")[3])
        for line in old.splitlines()
        if line.startswith("# Measure ")
    }
    id = nord_files.id(nord.SECOND)
    assert measures == {name: value for name, (value, _) in nord.aseg5_header(id).items()}
    assert "ICV" in measures and "eTIV" not in measures and "Left-Thalamus-Proper" in old
    assert (
        found["lines end with CR and LF"].count(b"\r\n")
        == found["lines end with CR and LF"].count(b"\n")
        > 100
    )
    assert not found["no newline at the end"].endswith(b"\n")
    assert all(line.endswith(b" ") for line in found["blanks at the ends of the lines"].splitlines())
    assert nord_files.one(nord.FIRST, "recon-all", "lh.hippoSfVolumes-T1.v21.txt")
    kinds = {f.resource: (f.kind, f.direction) for f in nord_files.files}
    assert (
        kinds["DATA"] == ("assessor", "out")
        and kinds["ashs_out"] == kinds["nii"] == ("scan", "")
        and kinds["recon-all"] == ("session", "")
    )
    assert {f.scan_type for f in nord_files.files if f.scan} == {
        "MPRAGE",
        "t2 flair 3d",
        "DTI_64",
        "rest bold",
    }


def test_what_is_broken(lab: Archive) -> None:
    project = Project(lab, "BROKEN")
    assert {f.session for f in project.files} == set(broken.CASES)

    def aseg(session: str) -> str:
        return project.text(session, "FREESURFER6", f"{session}/stats/aseg.stats")

    def rows(session: str) -> int:
        return sum(not line.startswith("#") for line in aseg(session).splitlines())

    assert rows("b_healthy") == rows("007") == rows("1E5") == 45
    assert rows("b_truncated") < 45 and not aseg("b_truncated").endswith("\n")
    assert aseg("b_html").startswith("<!DOCTYPE html>") and aseg("b_empty") == ""
    assert rows("b_nrows") == 40 and "# NRows 45" in aseg("b_nrows")
    assert not [
        f for f in project.files if f.session == "b_hemisphere" and ("/rh." in f.path or "_right_" in f.path)
    ]
    assert [row["region"] for row in project.rows("b_formula", "BAMOS_ARTERIAL", ".csv")] == list(
        broken.FORMULAS
    )
    assert " =1+1 " in aseg("b_formula") and " nan " in aseg("b_nan") and " inf " in aseg("b_nan")
    assert len([f for f in project.files if f.session == "b_twice" and f.path.endswith("aseg.stats")]) == 2
    assert [f.path for f in project.files if f.gone] == ["b_gone/stats/aseg.stats"]
    assert "eTIV" in aseg("b_version") and "SupraTentorialVolNotVentVox" not in aseg("b_version")
    with pytest.raises(UnicodeDecodeError):
        aseg("b_binary")


def test_a_cohort_costs_nothing_until_it_is_read() -> None:
    archive = build("scale", sessions=0, cohort=300)
    session = archive.experiments["DEMO_E00123"]
    assert [r.label for r in session.resources] == ["FREESURFER6", "ASHS"]
    for resource in session.resources:
        entries = resource.entries
        assert isinstance(entries, LazyEntries) and resource.file_count == str(len(list(entries)))
        assert resource.file_size == str(sum(entry.listed_size for entry in entries))
        assert all(
            len(entry.content.read(0, 1 << 20)) == entry.listed_size for entry in entries if entry.content
        )
        assert entries[0] is not entries[0]  # not held
        del entries[0]
        assert entries[0] is entries[0] and resource.file_count == str(len(entries))
    found = {
        f.path.partition("/")[2]: f.read().decode()
        for f in files(archive, "COHORT", "demo")
        if f.session == "c00007_MR1" and f.resource == "FREESURFER6" and "/stats/" in f.path
    }
    lines = found["stats/lh.aparc.stats"].splitlines()
    table = m.aparc("DEMO_E00007", "6", "lh")
    assert {row[0]: row[3] for row in (line.split() for line in lines if not line.startswith("#"))} == {
        r: str(v["GrayVol"]) for r, v in table.items()
    }


def test_real_sized_maps_of_a_cohort() -> None:
    archive = build("scale", sessions=0, cohort=2, cohort_images=True, digests=False)
    resource = archive.experiments["DEMO_E00002"].resources[2]
    assert resource.label == "SPM12_SEGMENT" and resource.file_count == "3"
    entry = resource.entries[1]
    assert entry.content is not None and entry.path.startswith("c2")
    data = entry.content.read(0, 1 << 24)
    assert len(data) == entry.listed_size
    image = nib.Nifti1Image.from_bytes(gzip.decompress(data))
    assert image.shape == cohort.SHAPE
    assert float(image.get_fdata().sum()) == pytest.approx(cohort.tissue_volume("DEMO_E00002", "c2"))
