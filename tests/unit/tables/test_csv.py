"""The tables that choose from a pipeline's CSV file: ALPS, ASL, PET, QSMxT, Pyment, connectivity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tables.support import decimals, line_ends, names, session, text
from xnatfs.tables.registry import all_tables
from xnatfs.tables.spec import ParseError


def csv(rows: Any, ends: Any = ("\n", "", True)) -> str:
    return text([",".join(row) for row in rows], (ends[0], "", ends[2]))


# --- ALPS ---------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(decimals, min_size=11, max_size=11), line_ends())
def test_alps_is_passed_through_without_id_and_scanner(cells: list[str], ends: Any) -> None:
    columns = [column.name for column in all_tables()["alps/stats"].columns]
    found = session(
        "alps/stats", {"alps.stat/alps.csv": csv([["id", "scanner", *columns], ["S01", "", *cells]], ends)}
    )
    assert found.columns == tuple(columns) and found.rows == [tuple(cells)]


def test_alps_diffusion_has_a_row_a_metric() -> None:
    means = ("proj_L", "assoc_L", "proj_R", "assoc_R", "mean_proj", "mean_assoc")
    rows = [["S01", "", "FA", *["0.5"] * 6], ["S01", "", "MD", "0.0007", "nan", *["0.00080"] * 4]]
    content = csv([["id", "scanner", "diffusion_metric", *means], *rows])
    found = session("alps/diffusion", {"alps.stat/fa+md_alps.csv": content})
    assert found.columns == ("diffusion_metric", *means)
    assert found.rows == [("FA", *["0.5"] * 6), ("MD", "0.0007", "", *["0.00080"] * 4)]
    with pytest.raises(ParseError, match="proj_L is 'x', not a number"):
        session("alps/diffusion", {"alps.stat/fa+md_alps.csv": content.replace("0.0007", "x")})
    with pytest.raises(ParseError, match="no column diffusion_metric"):
        session("alps/diffusion", {"alps.stat/fa+md_alps.csv": "id,FA\nS01,1\n"})


# --- ASL ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pipeline", ["basil", "teasl"])
def test_perfusion_is_a_row_a_file(pipeline: str) -> None:
    files = {
        "native_space/perfusion_calib_gm_mean.txt": "61.2500\n",
        "native_space/perfusion_wm_calib_wm_mean.txt": "21.5",
        "native_space/pvcorr/perfusion_calib_gm_mean.txt": " 70.1 \r\n",
        "native_space/arrival_wm_wm_mean.txt": "nan\n",
        "std_space/perfusion_gm_mean.txt": "1",
    }
    found = session(f"{pipeline}/perfusion", files)
    assert found.columns == ("measurement", "pvcorr", "value", "filepath")
    assert found.rows == [
        ("perfusion_calib_gm_mean", "false", "61.2500", "native_space/perfusion_calib_gm_mean.txt"),
        ("perfusion_calib_wm_mean", "false", "21.5", "native_space/perfusion_wm_calib_wm_mean.txt"),
        ("perfusion_calib_gm_mean", "true", "70.1", "native_space/pvcorr/perfusion_calib_gm_mean.txt"),
        ("arrival_wm_mean", "false", "", "native_space/arrival_wm_wm_mean.txt"),
    ]
    for content, sentence in (("1 2", "2 fields"), ("low", "not a number"), ("", "empty")):
        with pytest.raises(ParseError, match=sentence):
            session(f"{pipeline}/perfusion", {"native_space/a.txt": content})


REGIONS = ("name", "Nvoxels", "Mean", "Std", "Median", "IQR", "Precision-weighted mean", "I2")
PARTS = {"whole_brain": "", "GM": "_gm", "WM": "_wm"}


def test_regional_perfusion() -> None:
    row = ["Left Hippocampus", "120", "45.10", "5.0", "44", "6.5", "45.2", "80"]
    folder = "native_space/region_analysis"
    files = {
        f"native_space/pvcorr/region_analysis{end}.csv": csv([REGIONS, ["other", *row[1:]]])
        for end in PARTS.values()
    }  # the first in the catalogue, and not the one to read
    files |= {
        f"{folder}/region_analysis{end}.csv": csv([REGIONS, [f"{name} region", *row[1:]]])
        for name, end in PARTS.items()
    }
    files |= {
        f"{folder}/region_analysis_arrival{end}.csv": csv([REGIONS, [f"{name} arrival", *row[1:]]])
        for name, end in PARTS.items()
    }
    found = session("basil/stats", files)
    assert found.columns == ("region_analysis", *REGIONS)
    assert found.rows == [(name, f"{name} region", *row[1:]) for name in PARTS]
    both = session("teasl/stats", files)
    assert both.rows == [
        *((f"{name}_perfusion", f"{name} region", *row[1:]) for name in PARTS),
        *((f"{name}_arrival", f"{name} arrival", *row[1:]) for name in PARTS),
    ]


def test_3d_asl_is_split_by_atlas() -> None:
    content = "atlas,region,mean,std\nglobal,GM,50.5,4\nglobal,WM,20.25,3\naal2,Precentral_L,48.1,\n"
    files = {"quantification_results.csv": content}
    assert session("asl3d/perfusion", files).rows == [
        ("global", "GM", "50.5", "4"),
        ("global", "WM", "20.25", "3"),
    ]
    assert session("asl3d/aal", files).rows == [("aal2", "Precentral_L", "48.1", "")]
    with pytest.raises(ParseError, match="no rows of the atlas aal2"):
        session("asl3d/aal", {"quantification_results.csv": "atlas,region,mean\nglobal,GM,50.5\n"})
    with pytest.raises(ParseError, match="mean of GM is 'x'"):
        session("asl3d/perfusion", {"quantification_results.csv": "atlas,region,mean\nglobal,GM,x\n"})


# --- PET ----------------------------------------------------------------------------------------------------

PET = ("region", "atlas", "reference_region", "measurement", "optimized_pet", "value", "nvoxels")
REFERENCE = {"fdg": "vermis", "ftm": "whole_cerebellum"}
ATLAS = {"hammers": "hammers", "aal": "AAL", "dk": "aparc+aseg"}


def pet_rows(value: str = "1.25000") -> list[list[str]]:
    return [
        [region, atlas, reference, measurement, optimized, value, "120"]
        for region, atlas in (
            ("landau_Composite", ""),
            ("cortex", "nan"),
            *((f"r-{atlas}", atlas) for atlas in ATLAS.values()),
        )
        for reference in ("pons", "vermis", "whole_cerebellum")
        for measurement in ("suvr", "centiloid")
        for optimized in ("True", "False")
    ]


@pytest.mark.parametrize("pipeline", ["fdg", "ftm"])
def test_pet_regions_are_those_of_the_reference_and_the_atlas(pipeline: str) -> None:
    files = {"quantification_results.csv": csv([PET, *pet_rows()])}
    expected = {
        name: (f"r-{atlas}", atlas, REFERENCE[pipeline], "suvr", "True", "1.25000", "120")
        for name, atlas in ATLAS.items()
    }
    for name, row in expected.items():
        found = session(f"{pipeline}/regional_{name}", files)
        assert found.columns == PET and found.rows == [row] and not found.notes
    assert session(f"{pipeline}/regional", files).rows == list(expected.values())


def test_single_pet_values() -> None:
    rows = pet_rows()
    for at, row in enumerate(rows):
        row[5] = f"{at}.50"
    files = {"quantification_results.csv": csv([PET, *rows])}
    (landau,) = [row for row in rows if row[:5] == ["landau_Composite", "", "vermis", "suvr", "False"]]
    (centiloid,) = [
        row for row in rows if row[:5] == ["cortex", "nan", "whole_cerebellum", "centiloid", "False"]
    ]
    assert session("fdg/landau", files) == (("landau",), [(landau[5],)], ())
    assert session("ftm/centiloids", files) == (("centiloids",), [(centiloid[5],)], ())


TAU = ("region", "atlas", "measurement", "smoothing_type", "value")


def test_tau_and_centaur() -> None:
    rows = [
        [f"{atlas}-{measurement}-{smoothing}", atlas, measurement, smoothing, "1.10"]
        for atlas in ("Hammers", "aal", "aparc+aseg")
        for measurement in ("suvr", "suvr_spm8")
        for smoothing in ("harmonized", "unsmoothed")
    ]
    files = {"tau_quantification_results.csv": csv([TAU, *rows])}
    assert [row[0] for row in session("tau/regional_hammers", files).rows] == ["Hammers-suvr-harmonized"]
    assert [row[0] for row in session("tau/regional_dk", files).rows] == ["aparc+aseg-suvr-harmonized"]
    assert len(session("tau/regional", files).rows) == 3

    columns = ("region", "measurement", "smoothing_type", "value")
    rows = [
        [region, measurement, smoothing, f"{at}.5"]
        for at, (region, measurement, smoothing) in enumerate(
            (region, measurement, smoothing)
            for region in ("Universal", "MesialTemporal")
            for measurement in ("centaurz", "suvr", "suvr_spm8")
            for smoothing in ("none", "harmonized")
        )
    ]
    files = {"centaurz_quantification_results.csv": csv([columns, *rows])}
    assert session("centaur/centaurz", files).rows == [("1.5",)]
    assert [row[:2] for row in session("centaur/regional", files).rows] == [
        (region, measurement)
        for region in ("Universal", "MesialTemporal")
        for measurement in ("centaurz", "suvr")
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (csv([PET]), "no rows"),
        (csv([PET[:-2], ["a"] * 5]), "no column value"),
        (csv([PET, *pet_rows("high")]), "value is 'high'"),
        (csv([PET, *pet_rows()])[:-10], "cells where the header has 7"),
        (csv([PET, ["x", "", "pons", "suvr", "False", "1", "2"]]), "it has no row landau_Composite"),
        (csv([PET, ["landau_Composite", "", "vermis", "suvr", "False", "", "2"]]), "has no value"),
        ("<html>", "web page"),
        ("a,a\n1,2\n", "one name"),
    ],
)
def test_what_is_no_quantification_is_refused(content: str, sentence: str) -> None:
    with pytest.raises(ParseError, match=sentence):
        session("fdg/landau", {"quantification_results.csv": content})


def test_atlases_called_alike_are_noted() -> None:
    rows = [[f"r{at}", atlas, "vermis", "suvr", "True", "1", "2"] for at, atlas in enumerate(("aal", "aal2"))]
    found = session("fdg/regional_aal", {"quantification_results.csv": csv([PET, *rows])})
    assert len(found.rows) == 2 and found.notes == ("several atlases are called so: aal, aal2",)


# --- QSMxT --------------------------------------------------------------------------------------------------

QSM = ("subject", "roi", "num_voxels", "min", "max", "median", "mean", "std")


def test_qsmxt_has_xnats_subject_in_place_of_its_own() -> None:
    content = csv([QSM, ["sub-A1_ses-B2", "Left-Pallidum", "1200", "-0.1", "0.2", "0.05", "0.0510", "nan"]])
    found = session("qsmxt/stats", {"region_analysis/all.csv": content})
    assert found.columns == ("subject_id", "session_id", *QSM)
    assert found.rows == [("A1", "B2", "S01", "Left-Pallidum", "1200", "-0.1", "0.2", "0.05", "0.0510", "")]
    assert all_tables()["qsmxt/stats"].trail == ()
    with pytest.raises(ParseError, match="mean is 'x'"):
        session(
            "qsmxt/stats", {"region_analysis/all.csv": csv([QSM, ("s", "r", "1", "2", "3", "4", "x", "5")])}
        )


# --- Pyment -------------------------------------------------------------------------------------------------


def pyment(*people: tuple[str, str]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    table = all_tables()["pyment/predictions"]
    rows: list[tuple[str, ...]] = []
    columns: tuple[str, ...] = ()
    for at, (predicted, age) in enumerate(people):
        content = f"id,prediction,chronological_age,model\nXNAT_E00001,{predicted},{age},sfcn\n"
        found = session(table, {"XNAT_E00001_prediction.csv": content, "XNAT_E00002_prediction.csv": "x"})
        columns = ("ID", *found.columns, "label", "date")
        rows += [(f"E{at}", *row, "l", "d") for row in found.rows]
    assert table.finish
    return table.finish(columns, rows)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(2000, 9000), st.integers(2000, 9000)), min_size=2, max_size=12))
def test_the_gap_is_the_residual_of_the_regression(people: list[tuple[int, int]]) -> None:
    columns, rows = pyment(*((f"{a / 100}", f"{b / 100}") for a, b in people))
    assert columns == (
        *(
            "ID",
            "prediction",
            "chronological_age",
            "model",
            "bag_raw",
            "subject",
            "prediction_corrected",
            "bag",
            "label",
            "date",
        ),
    )
    y, x = (np.array([pair[at] for pair in people], np.float64) / 100 for at in (0, 1))
    design = np.stack((np.ones(len(x)), x - x.mean()), axis=1)
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert [float(row[7]) for row in rows] == pytest.approx(list(residual), abs=1e-8)
    assert [float(row[6]) for row in rows] == pytest.approx(list(x + residual), abs=1e-8)
    assert [float(row[4]) for row in rows] == pytest.approx(list(y - x))
    assert {row[5] for row in rows} == {"S01"}


def test_one_prediction_has_no_regression() -> None:
    _, rows = pyment(("61.5", "60.25"))
    assert rows == [("E0", "61.5", "60.25", "sfcn", "1.25", "S01", "", "", "l", "d")]
    _, rows = pyment(("61.5", "60.25"), ("70", ""), ("65", "62"))
    assert rows[1][4:8] == ("", "S01", "", "") and rows[0][7]


# --- connectivity -------------------------------------------------------------------------------------------

nodes = st.lists(names.filter(lambda name: name not in ("Node", "NA")), min_size=1, max_size=5, unique=True)


@settings(max_examples=40)
@given(nodes, st.data(), line_ends())
def test_matrices_are_those_written(found_nodes: list[str], data: Any, ends: Any) -> None:
    size = len(found_nodes)
    cells = data.draw(
        st.lists(st.lists(decimals, min_size=size, max_size=size), min_size=size, max_size=size)
    )
    named = text(
        [
            "\t".join(["Node", *found_nodes]),
            *("\t".join(row) for row in ([n, *c] for n, c in zip(found_nodes, cells, strict=True))),
        ]
    )
    found = session("xcpd/conmat", {"xcp_d/sub-1_atlas-DK_measure-pearsoncorrelation_conmat.tsv": named})
    assert found.columns == ("Node", *found_nodes)
    assert found.rows == [(name, *row) for name, row in zip(found_nodes, cells, strict=True)]
    for between in (",", " ", ", "):
        plain = text([between.join(row) for row in cells], ends)
        found = session("mrtrix3/connectome", {"connectome.csv": plain})
        assert found.columns == ("Node", *(str(at + 1) for at in range(size)))
        assert found.rows == [(str(at), *row) for at, row in enumerate(cells, 1)]
    series = text(["\t".join(found_nodes), *("\t".join(row) for row in cells)])
    found = session("xcpd/timeseries", {"xcp_d/sub-1_atlas-DK_timeseries.tsv": series})
    assert found.columns == tuple(found_nodes) and found.rows == [tuple(row) for row in cells]


def test_matrices_that_are_not_square_are_refused() -> None:
    for content in ("1,2\n3\n", "1,2\n", "1,x\n3,4\n"):
        with pytest.raises(ParseError):
            session("mrtrix3/connectome", {"connectome.csv": content})
    for content in (
        "Node\ta\tb\na\t1\t2\n",
        "a\tNode\n1\ta\n",
        "Node\ta\tb\na\t1\t2\nc\t1\t2\n",
        "Node\ta\na\tx\n",
    ):
        with pytest.raises(ParseError):
            session("xcpd/conmat", {"s_atlas-DK_measure-pearsoncorrelation_conmat.tsv": content})
    found = session("xcpd/conmat", {"s_atlas-DK_measure-pearsoncorrelation_conmat.tsv": "Node\ta\na\tn/a\n"})
    assert found.rows == [("a", "")]
