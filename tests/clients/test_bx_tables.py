"""bx 0.9.2, unmodified, makes its tables from project PIPES, with the true values in them: all commands in
one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.bx import several_once
from tests.support import lab_archive
from xnatfs.demo.data import derived as d
from xnatfs.demo.data import measurements as m
from xnatfs.demo.data import pipes
from xnatfs.demo.data import tracers as t
from xnatfs.demo.data.lab import by_label
from xnatfs.demo.model import Archive
from xnatfs.demo.server import DemoServer

pytestmark = pytest.mark.timeout(900)  # the first run ever installs bx
Rows = list[dict[str, str]]

TABLES = (
    "freesurfer6hires aseg",
    "freesurfer6hires aparc",
    "freesurfer7 brainstem",
    "freesurfer7 thalamus",
    "freesurfer7 hypothalamus",
    "freesurfer7 jack",
    "cat12 volumes",
    "spm12 volumes",
    "fslanat volumes",
    "fslanat subcortical",
    "bamos volumes",
    "bamosarterial stats",
    "alps stats",
    "alps diffusion",
    "basil perfusion",
    "basil stats",
    "basil aal",
    "teasl perfusion",
    "teasl stats",
    "teasl aal",
    "asl3d perfusion",
    "asl3d aal",
    "fdg landau",
    "fdg regional < dk",
    "fdg aging",
    "fdg mri",
    "ftm centiloids",
    "ftm regional < hammers",
    "ftm mri",
    "tau regional < aal",
    "tau mri",
    "centaur centaurz",
    "centaur regional",
    "bamos stats",
    "qsmxt stats",
    "donsurf aparc",
    "lcmodel stats",
    "lcmodel correction",
    "pyment predictions",
    "braak volumes",
    "braak thickness",
    "braak fdg",
    "signature jack",
    "signature dickerson",
    "scandates",
    "archiving mri",
    "archiving pet",
    "archiving tau",
)
TESTS = {
    "alps": "ALPS",
    "ants": "ANTS",
    "asl3d": "3DASL_QUANTIFICATION",
    "bamos": "BAMOS",
    "bamosarterial": "BAMOS_ARTERIAL",
    "basil": "BASIL",
    "cat12": "CAT12_SEGMENT",
    "centaur": "CENTAURZ",
    "dartel": "DARTEL_NORM2MNI",
    "donsurf": "DONSURF",
    "dtifit": "TOPUP_DTIFIT",
    "fdg": "FDG_QUANTIFICATION2",
    "fmriprep": "FMRIPREP",
    "freesurfer6hires": "FREESURFER6_HIRES",
    "freesurfer7extras": "FREESURFER7_EXTRAS",
    "fslanat": "FSL_ANAT",
    "ftm": "FTM_QUANTIFICATION2",
    "lcmodel": "LCMODEL",
    "mrtrix3": "MRTRIX3",
    "petpreprocessing": "PET_PREPROCESSING",
    "pyment": "PYMENT",
    "qsmxt": "QSMXT",
    "reface": "MRI_REFACE",
    "tau": "TAU_QUANTIFICATION",
    "teasl": "TE_ASL",
    "xcpd": "XCP_D",
}


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(lab_archive()) as server:
        yield server


@pytest.fixture(scope="module")
def archive(server: DemoServer) -> Archive:
    return server.archive


@pytest.fixture(scope="module")
def tables(server: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Command -> what it made."""
    commands = [
        *TABLES,
        *(f"{command} tests" for command in TESTS),
        "xcpd conmat",
        "xcpd timeseries",
        "dtifit maps",
        "dtifit report",
    ]
    parts = [command.partition(" < ") for command in commands]
    lines = [f"{args} PIPES{sign}{answers}" for args, sign, answers in parts]
    made = several_once(server.url, lines, tmp_path_factory)
    return {command: made[line][0] for command, line in zip(commands, lines, strict=True)}


def ids(archive: Archive, resource: str) -> list[str]:
    """The sessions of PIPES with this resource."""
    mine = [e for e in archive.experiments.values() if e.project == "PIPES"]
    return sorted(e.id for e in mine if any(r.label == resource for r in e.resources))


def numbers(rows: Rows, keys: tuple[str, ...], value: str = "value") -> dict[tuple[str, ...], float]:
    found = {tuple(row[key] for key in ("ID", *keys)): float(row[value]) for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("command", TABLES)
def test_every_table_is_made(tables: dict[str, Any], command: str) -> None:
    rows = tables[command]
    assert isinstance(rows, list) and rows and isinstance(rows[0], dict), rows
    assert all(
        row["subject" if "subject" in row else "subject_label"][:2] == "P0"
        for row in rows
        if "HasUsableT1" not in row
    )


@pytest.mark.parametrize(("command", "resource"), TESTS.items())
def test_outcomes_of_validators(
    tables: dict[str, Any], archive: Archive, command: str, resource: str
) -> None:
    validator = (pipes.MR | pipes.PET)[resource][0]
    words = {True: ("True", "1"), False: ("False", "0"), None: ("",)}
    rows = {row["ID"]: row for row in tables[f"{command} tests"]}
    assert sorted(rows) == ids(archive, resource)
    for session, row in rows.items():
        for test, passed in m.validator(session, validator).items():
            assert row[test] in words[passed]


def test_freesurfer_in_high_resolution(tables: dict[str, Any], archive: Archive) -> None:
    found = numbers(tables["freesurfer6hires aseg"], ("measurement", "region"))
    for session in ids(archive, "FREESURFER6_HIRES"):
        for structure, row in m.aseg(d.hires(session), "6").items():
            assert all(found[session, column, structure] == float(value) for column, value in row.items())
        assert found[session, "Volume_mm3", "eTIV"] == float(m.etiv(d.hires(session)))
        assert (session, "Volume_mm3", "MaskVol") not in found
    found = numbers(tables["freesurfer6hires aparc"], ("side", "measurement", "region"))
    for session in ids(archive, "FREESURFER6_HIRES"):
        for region, row in m.aparc(d.hires(session), "6", "lh").items():
            assert all(
                found[session, "left", column, region] == float(value) for column, value in row.items()
            )


def test_volumes_of_images(tables: dict[str, Any], archive: Archive) -> None:
    expected = {id: d.cat12_volumes(id) for id in ids(archive, "CAT12_SEGMENT")}
    assert {
        row["ID"]: {f"p{n}": float(row[f"mri/p{n}"]) for n in (1, 2, 3)} for row in tables["cat12 volumes"]
    } == expected
    expected = {id: d.pve_volumes(id) for id in ids(archive, "FSL_ANAT")}
    names = [f"T1_fast_pve_{n}" for n in (0, 1, 2)]
    assert {
        row["ID"]: {name: float(row[name]) for name in names} for row in tables["fslanat volumes"]
    } == expected
    regions = {
        (id, name): v for id in ids(archive, "FSL_ANAT") for name, v in d.subcortical_volumes(id).items()
    }
    assert numbers(tables["fslanat subcortical"], ("region",), "volume") == regions
    lesions = {(id,): float(d.bamos_volume(id)) for id in ids(archive, "BAMOS")}
    assert numbers(tables["bamos volumes"], (), "volume") == lesions
    for uniform, resource in (("basil aal", "BASIL"), ("teasl aal", "TE_ASL")):
        for row in tables[uniform]:
            assert float(row["value"]) == pytest.approx(t.uniform(row["ID"], f"{resource}/perfusion_calib"))
    for row in tables["fdg aging"]:
        assert float(row["value"]) == pytest.approx(t.uniform(row["ID"], "fdg/pons"))


def test_lesions_by_lobe(tables: dict[str, Any], archive: Archive) -> None:
    # In one process BX_DUMP answers the question of `bamos stats`: BAMOS.
    rows = {
        (row["ID"], int(row["depth"]), row["region"]): (int(row["n"]), float(row["volume"]))
        for row in tables["bamos stats"]
    }
    expected = {
        (id, *place): (n, float(v))
        for id in ids(archive, "BAMOS")
        for place, (n, v) in d.bamos_stats(id).items()
    }
    assert rows == expected


def test_perfusion(tables: dict[str, Any], archive: Archive) -> None:
    for command, resource, analyses in (
        ("basil", "BASIL", t.BASIL_REGIONS),
        ("teasl", "TE_ASL", t.TEASL_REGIONS),
    ):
        rows = {
            (row["ID"], row["filepath"]): (row["measurement"], row["pvcorr"], float(row["value"]))
            for row in tables[f"{command} perfusion"]
        }
        truth = {
            (id, path): (what, str(pv), float(v))
            for id in ids(archive, resource)
            for path, (what, pv, v) in t.perfusion(id, resource).items()
        }
        assert rows == truth
        found = {
            (row["ID"], row["region_analysis"], row["name"]): float(row["I2"])
            for row in tables[f"{command} stats"]
        }
        assert found == {
            (id, analysis, name): pytest.approx(float(row["I2"]))
            for id in ids(archive, resource)
            for analysis in analyses
            for name, row in t.regions(id, resource, analysis).items()
        }


def test_pet(tables: dict[str, Any], archive: Archive) -> None:
    for command, truth, resource in (
        ("fdg landau", t.landau, "FDG_QUANTIFICATION2"),
        ("ftm centiloids", t.centiloids, "FTM_QUANTIFICATION2"),
        ("centaur centaurz", t.centaurz, "CENTAURZ"),
    ):
        found = numbers(tables[command], (), command.split()[1])
        assert found == {(id,): pytest.approx(float(truth(id))) for id in ids(archive, resource)}
    rows = {row["ID"]: row for row in tables["fdg mri"]}
    first, mri = by_label(archive, "PIPES", "P02_FTM1"), by_label(archive, "PIPES", "P02_MR1")
    assert (rows[first.id]["MRI_ID"], rows[first.id]["notes"]) == (mri.id, "T1 of the first visit")
    assert rows[by_label(archive, "PIPES", "P04_FDG1").id]["MRI_ID"] == ""


def test_other_tables(tables: dict[str, Any], archive: Archive) -> None:
    for row in tables["alps stats"]:
        assert float(row["alps"]) == pytest.approx(float(d.alps(row["ID"])["alps"]))
    assert {row["ID"] for row in tables["alps stats"]} == set(ids(archive, "ALPS"))
    for row in tables["qsmxt stats"]:
        assert float(row["mean"]) == float(d.qsmxt(row["ID"])[row["roi"]]["mean"])
    for row in tables["pyment predictions"]:
        truth = d.pyment(row["ID"])
        assert float(row["bag_raw"]) == pytest.approx(float(truth["prediction"] - truth["chronological_age"]))
    for row in tables["donsurf aparc"]:
        if row["measurement"] == "DiffuAvg":
            assert float(row["value"]) == float(
                d.donsurf(row["ID"], "GM-MD", row["side"][0] + "h")[row["region"]]["ThickAvg"]
            )
    for row in tables["lcmodel stats"]:
        truth_of = {(r["region"], r["table"], r["measurement"]): r["value"] for r in d.lcmodel(row["ID"])}
        assert float(row["NAA"]) == float(truth_of[row["region"], "concentration", "NAA"])
        assert float(row["NAA_SD"]) == float(truth_of[row["region"], "concentration_SD", "NAA"])
    assert (
        len(tables["scandates"]) == 10
        and len(tables["archiving mri"]) == 4
        and len(tables["archiving pet"]) == 3
    )


def test_matrices_and_maps(tables: dict[str, Any]) -> None:
    assert len(tables["xcpd conmat"]) == len(tables["xcpd timeseries"]) == 3
    assert len(tables["dtifit maps"]) == 12 and len(tables["dtifit report"]) == 3
