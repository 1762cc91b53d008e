"""bx 0.9.2, unmodified, on the stand-in: the tables and files its users know, with the true values in
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.bx import configure
from tests.clients.conftest import Lab
from xnatfs.demo.data import measurements as m

pytestmark = pytest.mark.timeout(900)  # the first run ever installs bx
Rows = list[dict[str, str]]

HIPPOCAMPUS = [("freesurfer6", "v10", "FREESURFER6"), ("freesurfer7", "v21", "FREESURFER7")]
EXTRAS = {
    "amygNucVolumes": {"left": m.amygdala("DEMO_E00001", "lh"), "right": m.amygdala("DEMO_E00001", "rh")},
    "brainstem": {"": m.brainstem("DEMO_E00001")},
    "thalamus": {side: m.thalamus("DEMO_E00001", side) for side in ("left", "right")},
    "hypothalamus": {side: m.hypothalamus("DEMO_E00001", side) for side in ("left", "right")},
}
# In one process: to import bx takes longer than most of its commands.
COMMANDS = [
    "freesurfer6 aseg ALFA",
    "freesurfer7 aparc DEMO_E00004",
    *(f"{command} hippoSfVolumes ALFA" for command, _, _ in HIPPOCAMPUS),
    *(f"freesurfer7 {command} DEMO_E00001" for command in EXTRAS),
    "ashs volumes ALFA",
    "spm12 volumes ALFA <1",
    "ashs tests ALFA",
    "nifti ALFA <T1_ALFA1",
    "nifti all DEMO_E00008 <DW*",
    "ashs files DEMO_E00001",
    "ashs report DEMO_E00001",
    "ashs snapshot DEMO_E00001",
    "spm12 rc DEMO_E00001 <1",
    "freesurfer7 jack DEMO_E00001",
    "braak thickness ALFA",
    "scandates ALFA",
    "id ALFA",
]


@dataclass(frozen=True)
class Made:
    """What each command of bx made."""

    told: dict[str, Any]
    folder: Path

    def table(self, command: str) -> Rows:
        """The rows of its table, every value as text."""
        rows: Rows = self.told[command]
        assert rows and isinstance(rows, list) and isinstance(rows[0], dict), (command, rows)
        return rows

    def files(self, command: str) -> Path:
        """The folder with the files it left."""
        assert isinstance(self.told[command], list), (command, self.told[command])
        return self.folder / str(COMMANDS.index(command))


@pytest.fixture(scope="package")
def bx(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("bx")
    return Made(configure(lab.url, "demo", folder).several(COMMANDS, folder), folder)


def sessions_with(lab: Lab, resource: str) -> list[str]:
    return sorted({f.session_id for f in lab.files(resource=resource, kind="session")})


def test_freesurfer6_aseg(bx: Made, lab: Lab) -> None:
    rows = bx.table("freesurfer6 aseg ALFA")
    ids = sessions_with(lab, "FREESURFER6")
    assert sorted({row["ID"] for row in rows}) == ids and len(rows) == 426 * len(ids)
    found = {(row["ID"], row["measurement"], row["region"]): float(row["value"]) for row in rows}
    for session in ids:
        for structure, values in m.aseg(session, "6").items():
            for column, value in values.items():
                assert found[session, column, structure] == float(value)
        for name, (value, unit) in m.aseg_header(session, "6").items():
            if name != "CortexVol":  # bx never emits it
                assert found[session, "unitless" if unit == "unitless" else "Volume_mm3", name] == float(
                    value
                )
    assert {row["subject"] for row in rows if row["ID"] == "DEMO_E00008"} == {"007"}


def test_freesurfer7_aparc_of_one_session(bx: Made) -> None:
    rows = bx.table("freesurfer7 aparc DEMO_E00004")
    assert len(rows) == 625
    found = {(row["side"], row["measurement"], row["region"]): float(row["value"]) for row in rows}
    for side, name in (("lh", "left"), ("rh", "right")):
        for region, values in m.aparc("DEMO_E00004", "7", side).items():
            for column, value in values.items():
                assert found[name, column, region] == float(value)


@pytest.mark.parametrize(("command", "version", "label"), HIPPOCAMPUS)
def test_hippocampal_subfields(bx: Made, lab: Lab, command: str, version: str, label: str) -> None:
    rows = bx.table(f"{command} hippoSfVolumes ALFA")
    expected = {
        (session, name, region): float(value)
        for session in sessions_with(lab, label)
        for side, name in (("lh", "left"), ("rh", "right"))
        for region, value in m.hippocampus(session, version, side).items()
    }
    assert {(row["ID"], row["side"], row["region"]): float(row["value"]) for row in rows} == expected


@pytest.mark.parametrize("command", EXTRAS)
def test_freesurfer7_extras(bx: Made, command: str) -> None:
    rows = bx.table(f"freesurfer7 {command} DEMO_E00001")
    found = {(row.get("side", ""), row["region"]): float(row["value"]) for row in rows}
    assert found == {
        (side, region): float(value)
        for side, values in EXTRAS[command].items()
        for region, value in values.items()
    }


def test_ashs_volumes(bx: Made, lab: Lab) -> None:
    rows = bx.table("ashs volumes ALFA")
    ids = sessions_with(lab, "ASHS")
    assert len(rows) == len(ids) * 17
    found = {(row["ID"], row["side"], row["region"]): (row["n_slices"], float(row["volume"])) for row in rows}
    for session in ids:
        for side in ("left", "right"):
            for region, (slices, volume) in m.ashs(session, side).items():
                assert found[session, side, region] == (str(slices), float(volume))
        assert found[session, "", "tiv"][1] == float(m.ashs_icv(session))


def test_spm12_volumes(bx: Made, lab: Lab) -> None:
    rows = bx.table("spm12 volumes ALFA <1")
    expected = {session: m.tissue_volumes(session) for session in sessions_with(lab, "SPM12_SEGMENT")}
    assert {row["ID"]: {name: float(row[name]) for name in ("c1", "c2", "c3")} for row in rows} == expected


def test_validator_tests(bx: Made, lab: Lab) -> None:
    rows = bx.table("ashs tests ALFA")
    truth = {session: m.validator(session, "ASHSValidator") for session in sessions_with(lab, "ASHS")}
    words = {True: "True", False: "False", None: ""}
    assert {row["ID"]: {test: row[test] for test in m.VALIDATOR_TESTS["ASHSValidator"]} for row in rows} == {
        session: {test: words[passed] for test, passed in tests.items()} for session, tests in truth.items()
    }


def test_nifti(bx: Made, lab: Lab) -> None:
    """One sequence over the whole project: the usable images only."""
    out = bx.files("nifti ALFA <T1_ALFA1")
    expected = {
        f"{f.subject}_{f.session}_{f.scan}_{f.session_id}.nii.gz": f.read()
        for f in lab.files(resource="NIFTI", scan="2")
        if f.path.endswith(".nii.gz") and f.scan_type == "T1_ALFA1"
    }
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected and len(expected) == 9


def test_nifti_of_diffusion_brings_the_gradients(bx: Made, lab: Lab) -> None:
    out = bx.files("nifti all DEMO_E00008 <DW*")
    stem = "007_007_MR1_4_DEMO_E00008"
    assert {path.name for path in out.iterdir()} == {f"{stem}.nii.gz", f"{stem}.bval", f"{stem}.bvec"}


def test_files_of_a_pipeline(bx: Made, lab: Lab) -> None:
    out = bx.files("ashs files DEMO_E00001")
    assert {path.name for path in (out / "DEMO_E00001").iterdir()} == {
        "ASHS.zip",
        "ASHSValidator_DEMO_E00001.pdf",
    }


def test_report_and_snapshot(bx: Made, lab: Lab) -> None:
    (report,) = (
        f
        for f in lab.files(session="sub001_MR1", resource="BBRC_VALIDATOR")
        if f.path == "ASHSValidator_DEMO_E00001.pdf"
    )
    out = bx.files("ashs report DEMO_E00001")
    assert (out / report.path).read_bytes() == report.read()
    out = bx.files("ashs snapshot DEMO_E00001")
    assert [path.suffix for path in out.iterdir()] in ([".png"], [".jpg"])


def test_dartel_imports(bx: Made, lab: Lab) -> None:
    out = bx.files("spm12 rc DEMO_E00001 <1")
    maps = lab.files(session="sub001_MR1", resource="SPM12_SEGMENT")
    wanted = {f"{f.path[:3]}_sub001_DEMO_E00001.nii.gz": f for f in maps if f.path[:2] == "rc"}
    assert len(wanted) == 2
    for name, file in wanted.items():
        assert (out / name).read_bytes() == file.read()


def test_cortical_signature(bx: Made) -> None:
    """`jack`: entorhinal, inferior and middle temporal, fusiform of both sides, plain and weighted by
    surface.
    """
    rows = bx.table("freesurfer7 jack DEMO_E00001")
    found = {(row["weighted"], row["measurement"]): float(row["value"]) for row in rows}
    regions = [
        m.aparc("DEMO_E00001", "7", side)[region]
        for side in ("lh", "rh")
        for region in ("entorhinal", "inferiortemporal", "middletemporal", "fusiform")
    ]
    for measurement in ("ThickAvg", "GrayVol"):
        values = [(float(region[measurement]), float(region["SurfArea"])) for region in regions]
        weighted = sum(value * area for value, area in values) / sum(area for _, area in values)
        assert found["True", measurement] == pytest.approx(weighted)
        assert found["False", measurement] == pytest.approx(sum(value for value, _ in values) / len(values))


def test_braak_stages(bx: Made, lab: Lab) -> None:
    rows = bx.table("braak thickness ALFA")
    assert len(rows) == 3 * len(sessions_with(lab, "FREESURFER7"))


def test_scandates(bx: Made, lab: Lab) -> None:
    rows = {row["ID"]: row for row in bx.table("scandates ALFA")}
    assert len(rows) == 11
    assert rows["DEMO_E00001"]["scandate"] == "2021-02-15" and rows["DEMO_E00001"]["label"] == "sub001_MR1"
    assert rows["DEMO_E00006"]["scandate"] == "2021-05-12"  # from its DICOM files: the session has no date


def test_id(bx: Made) -> None:
    rows = {row["ID"]: row for row in bx.table("id ALFA")}
    assert rows["DEMO_E00009"] == {
        "ID": "DEMO_E00009",
        "label": "007_MR2",
        "subject_label": "007",
        "project": "ALFA",
    }


def test_what_a_stranger_sees(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    told = configure(lab.url, "outsider", tmp_path).run("id", "SECRET", dest=out)
    assert "not a project or an experiment" in told
