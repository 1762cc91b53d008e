"""FreeSurfer's files: known values in, the same values out, in bx's order, for every way the files are
written.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tables.support import (
    UNFINISHED,
    aparc_file,
    aseg_file,
    decimals,
    line_ends,
    names,
    session,
    text,
    value,
    wholes,
)
from xnatfs.tables.parse.freesurfer_stats import APARC_COLUMNS, ASEG_COLUMNS
from xnatfs.tables.pipelines import freesurfer
from xnatfs.tables.registry import all_tables
from xnatfs.tables.spec import ParseError

VOLUMES, UNITLESS = freesurfer.ASEG_VOLUMES, freesurfer.ASEG_UNITLESS


def aseg_rows(values: st.SearchStrategy[str] = decimals) -> st.SearchStrategy[list[tuple[str, ...]]]:
    row = st.tuples(wholes, wholes, wholes, values, names, *[values] * 5)
    return st.lists(row, min_size=1, max_size=6, unique_by=lambda row: row[4])


def aparc_rows() -> st.SearchStrategy[list[tuple[str, ...]]]:
    return st.lists(
        st.tuples(names, *[wholes] * 3, *[decimals] * 6), min_size=1, max_size=6, unique_by=lambda row: row[0]
    )


@st.composite
def measures(draw: Any, wanted: tuple[str, ...]) -> list[tuple[str, str, str]]:
    kept = draw(st.lists(st.sampled_from(wanted), unique=True))
    return [(name, draw(decimals), "mm^3") for name in draw(st.permutations(kept))]


@settings(max_examples=60)
@given(measures((*VOLUMES, *UNITLESS, "CortexVol")), aseg_rows(), line_ends(), st.booleans())
def test_aseg_gives_what_is_written(
    header: list[tuple[str, str, str]], rows: Any, ends: Any, counted: bool
) -> None:
    found = session("freesurfer6/aseg", {"S01/stats/aseg.stats": aseg_file(header, rows, ends, counted)})
    held = {name: cell for name, cell, _ in header}
    expected = [("Volume_mm3", name, held[name]) for name in VOLUMES if name in held]
    expected += [("unitless", name, held[name]) for name in UNITLESS if name in held]
    for at, column in enumerate(ASEG_COLUMNS):
        if column != "StructName":
            expected += [(column, row[4], row[at]) for row in rows]
    assert found.columns == ("measurement", "region", "value")
    assert found.rows == expected
    missing = [name for name in (*VOLUMES, *UNITLESS) if name not in held]
    cut = not ends[2]
    assert found.notes == (
        *([UNFINISHED] if cut else []),
        *([f"its header has no {', '.join(missing)}"] if missing else []),
    )


@settings(max_examples=60)
@given(measures(freesurfer.APARC_VOLUMES), aparc_rows(), aparc_rows(), line_ends(), st.booleans())
def test_aparc_gives_what_is_written(
    header: list[tuple[str, str, str]], left: Any, right: Any, ends: Any, comma: bool
) -> None:
    own = [
        ("NumVert", "120000", "unitless"),
        ("WhiteSurfArea", "80000.5", "mm^2"),
        ("MeanThickness", "2.45000", "mm"),
    ]
    files = {
        "S01/stats/lh.aparc.stats": aparc_file(own + header, left, ends, comma),
        "S01/stats/rh.aparc.stats": aparc_file(own + header, right, ends, comma),
    }
    if not ends[2]:  # few regions, and cut in the last line
        with pytest.raises(ParseError, match="cut short"):
            session("freesurfer6/aparc", files)
        return
    found = session("freesurfer6/aparc", files)
    held = {name: cell for name, cell, _ in header}
    expected = [("", "Volume_mm3", name, held[name]) for name in freesurfer.APARC_VOLUMES if name in held]
    for side, rows in (("left", left), ("right", right)):
        expected += [
            (side, "Thickness_mm", "MeanThickness", "2.45000"),
            (side, "SurfArea_mm2", "WhiteSurfArea", "80000.5"),
        ]
        expected += [(side, "unitless", "NumVert", "120000")]
        expected += [
            (side, column, row[0], row[at]) for at, column in enumerate(APARC_COLUMNS) if at for row in rows
        ]
    assert found.rows == expected


def full_header() -> list[tuple[str, str, str]]:
    return [(name, f"{1000 + at}.500000", "mm^3") for at, name in enumerate((*VOLUMES, *UNITLESS))]


ROW = (
    "1",
    "4",
    "9000",
    "9100.5",
    "Left-Lateral-Ventricle",
    "25.1000",
    "10.2000",
    "4.0000",
    "80.0000",
    "76.0000",
)


def test_a_whole_aseg_of_each_version_has_as_many_rows_as_in_bx() -> None:
    rows = [(*ROW[:4], f"Structure-{at}", *ROW[5:]) for at in range(45)]
    content = aseg_file(full_header(), rows)
    assert len(session("freesurfer6/aseg", {"stats/aseg.stats": content}).rows) == 426
    assert len(session("freesurfer7/aseg", {"stats/aseg.stats": content}).rows) == 424
    hires = session("freesurfer6hires/aseg", {"stats/aseg.stats": content})
    assert len(hires.rows) == 426 - 14  # CortexVol, the fifteenth, is not in this table
    assert {row[1] for row in hires.rows[:7]} == {
        *("BrainSegVolNotVentSurf", "VentricleChoroidVol", "SupraTentorialVolNotVentVox", "eTIV"),
        *("lhSurfaceHoles", "rhSurfaceHoles", "SurfaceHoles"),
    }
    assert hires.notes == ()


def test_a_freesurfer_5_header_is_read_under_the_names_of_today() -> None:
    header = [
        ("ICV", "1500000.5", "mm^3"),
        ("lhCorticalWhiteMatterVol", "230000.25", "mm^3"),
        ("rhCorticalWhiteMatterVol", "231000.25", "mm^3"),
        ("CorticalWhiteMatterVol", "461000.5", "mm^3"),
    ]
    found = session("freesurfer6/aseg", {"stats/aseg.stats": aseg_file(header, [ROW])})
    assert value(found, region="eTIV") == "1500000.5"
    assert value(found, region="CerebralWhiteMatterVol") == "461000.5"
    assert any("eTIV" in note and "former name" in note for note in found.notes)


def test_the_aseg_of_aseg_is_read_not_that_of_aparc_and_aseg() -> None:
    other = aseg_file(full_header(), [(*ROW[:4], "Other", *ROW[5:])])
    files = {"S/stats/aparc+aseg.stats": other, "S/stats/aseg.stats": aseg_file(full_header(), [ROW])}
    assert value(session("freesurfer7/aseg", files), measurement="Volume_mm3", region=ROW[4]) == "9100.5"


def test_one_side_alone_is_given_with_a_note_and_none_gives_nothing() -> None:
    rows = [(f"region{at}", *["1"] * 9) for at in range(34)]
    own = [
        ("NumVert", "3", "unitless"),
        ("WhiteSurfArea", "80.5", "mm^2"),
        ("MeanThickness", "2.4", "mm"),
        ("eTIV", "1.5", "mm^3"),
    ]
    found = session("freesurfer7/aparc", {"stats/rh.aparc.stats": aparc_file(own, rows)})
    assert len(found.rows) == 309
    assert {row[0] for row in found.rows} == {"right"}
    assert found.notes == ("the left file is missing or cannot be read: only the right side is given",)
    nothing = session("freesurfer7/aparc", {"stats/aseg.stats": ""})
    assert nothing.rows == [] and nothing.notes


def test_a_table_cut_at_a_lines_end_is_noted() -> None:
    rows = [(f"region{at}", *["1"] * 9) for at in range(20)]
    files = {f"stats/{side}h.aparc.stats": aparc_file([], rows) for side in "lr"}
    assert "the left file has 20 regions where the atlas has 34" in session("freesurfer7/aparc", files).notes
    whole = [(f"region{at}", *["1"] * 8, "12") for at in range(34)]
    found = session("freesurfer7/aparc", {"stats/lh.aparc.stats": aparc_file([], whole, ("\n", "", False))})
    assert value(found, region="region33", measurement="CurvInd") == "12" and UNFINISHED in found.notes


def test_other_atlases_are_tables_of_their_own() -> None:
    def named(region: str) -> str:
        return aparc_file([], [(region, *["1"] * 9)])

    files = {
        f"S/stats/{side}h.{file}.stats": named(f"{file}-{side}")
        for side in "lr"
        for file in ("aparc", "aparc.a2009s", "aparc.DKTatlas", "aparc.pial")
    }
    for key, file in (("aparc", "aparc"), ("aparc_a2009s", "aparc.a2009s"), ("aparc_DKT", "aparc.DKTatlas")):
        for pipeline in ("freesurfer6", "freesurfer6hires", "freesurfer7"):
            assert {row[2] for row in session(f"{pipeline}/{key}", files).rows} == {f"{file}-l", f"{file}-r"}
    older = {f"stats/{side}h.aparc.DKTatlas40.stats": named("x") for side in "lr"}
    assert session("freesurfer6/aparc_DKT", older).rows


def test_what_is_not_a_number_is_left_empty_and_noted() -> None:
    rows = [("bankssts", "1500", "1000", "2500", "2.500", "0.450", "nan", "-nan", "10", "1.1")]
    found = session("freesurfer7/aparc", {"stats/lh.aparc.stats": aparc_file([], rows)})
    assert value(found, region="bankssts", measurement="MeanCurv") == ""
    assert "2 of its values are not numbers (nan or inf) and left empty" in found.notes


GOOD = aseg_file(full_header(), [ROW, (*ROW[:4], "Other", *ROW[5:])])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "empty"),
        (" \n\r\n", "empty"),
        ("<!DOCTYPE html><html>Login</html>", "web page"),
        ("\n<HTML><body>502 Bad Gateway</body>", "web page"),
        (GOOD[:-30], "fields"),
        (GOOD.replace("# NRows 2", "# NRows 45"), "says 45 rows and it has 2"),
        (GOOD.replace("# NRows 2", "# NRows many"), "NRows is 'many'"),
        (GOOD.replace("# NTableCols 10", "# NTableCols 11"), "says 11 columns"),
        (GOOD.replace("9100.5", "9l00.5"), "'9l00.5', not a number"),
        (GOOD.replace("9100.5", "9_100.5"), "not a number"),
        (GOOD.replace("1000.500000", "many"), "BrainSegVol is 'many', not a number"),
        (GOOD.replace(" Other ", " Left-Lateral-Ventricle "), "twice"),
        (GOOD.replace(" Other ", " Other one "), "11 fields"),
        (GOOD.replace("StructName", "Name"), "no StructName"),
        (GOOD[: GOOD.index("  1 ")].replace("NRows 2", "NRows 0"), "no table"),
        ("# Measure BrainSeg, BrainS\n", "measure has 2 fields"),
        ('{"error": "not found"}', "2 fields|3 fields|fields"),
        (b"\x1f\x8b\0\0\0\0", "not a text file"),
    ],
)
def test_what_is_no_aseg_is_refused_in_a_sentence(content: str | bytes, sentence: str) -> None:
    with pytest.raises(ParseError, match=sentence):
        session("freesurfer7/aseg", {"stats/aseg.stats": content})


# --- lines of name and value --------------------------------------------------------------------------------


@st.composite
def subregions(draw: Any, *ends: str) -> tuple[list[tuple[str, str]], str]:
    """Names and values, and the file they stand in."""
    found = draw(st.lists(st.tuples(names, decimals), max_size=6, unique_by=lambda pair: pair[0]))
    pairs = [
        *((name, cell) for name, cell in found if name not in ends),
        *((name, draw(decimals)) for name in ends),
    ]
    blank = draw(st.sampled_from([" ", "  ", "\t"]))
    return pairs, text([f"{name}{blank}{cell}" for name, cell in pairs], draw(line_ends()))


@settings(max_examples=60)
@given(subregions("Whole_hippocampus"), subregions("Whole_hippocampus"), st.sampled_from([10, 20, 21, 22]))
def test_hippocampal_subfields(left: Any, right: Any, version: int) -> None:
    files = {
        f"S01/mri/{side}h.hippoSfVolumes-T1.v{version}.txt": content
        for side, (_, content) in (("r", right), ("l", left))
    }
    expected = [(side, *pair) for side, (pairs, _) in (("left", left), ("right", right)) for pair in pairs]
    for pipeline in ("freesurfer6", "freesurfer6hires", "freesurfer7"):
        found = session(f"{pipeline}/hippoSfVolumes", files)
        assert found.columns == ("side", "region", "value")
        assert found.rows == expected
        assert set(found.notes) <= {UNFINISHED}


@settings(max_examples=60)
@given(subregions("Whole_amygdala"), subregions("Whole_amygdala"))
def test_amygdalar_nuclei(left: Any, right: Any) -> None:
    files = {
        f"mri/{side}h.amygNucVolumes-T1.v21.txt": content
        for side, (_, content) in (("l", left), ("r", right))
    }
    expected = [(side, *pair) for side, (pairs, _) in (("left", left), ("right", right)) for pair in pairs]
    assert session("freesurfer7/amygNucVolumes", files).rows == expected


@settings(max_examples=60)
@given(subregions("Whole_brainstem"))
def test_brainstem(given_file: Any) -> None:
    pairs, content = given_file
    assert session("freesurfer7/brainstem", {"S/mri/brainstemSsVolumes.v12.txt": content}).rows == pairs


nuclei = st.one_of(names, st.sampled_from(["L-Sg", "MV(Re)", "VLa", "PuMm"]))


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(["Left", "Right"]), nuclei, decimals),
        unique_by=lambda row: row[:2],
        max_size=8,
    ),
    line_ends(),
)
def test_thalamus(rows: list[tuple[str, str, str]], ends: Any) -> None:
    rows = [row for row in rows if row[1] != "Whole_thalamus"]
    rows += [("Left", "Whole_thalamus", "6000.5"), ("Right", "Whole_thalamus", "6001.5")]
    content = text([f"{side}-{region} {cell}" for side, region, cell in rows], ends)
    found = session("freesurfer7/thalamus", {"S/mri/ThalamicNuclei.v12.T1.volumes.txt": content})
    assert found.rows == [(side.lower(), region, cell) for side, region, cell in rows]


@settings(max_examples=60)
@given(st.lists(decimals, min_size=6, max_size=6), line_ends())
def test_hypothalamus(cells: list[str], ends: Any) -> None:
    header = (
        "subject,left anterior-inferior,left tubular inferior,right anterior-inferior,right tubular "
        "inferior,whole left,whole right"
    )
    content = text([header, ",".join(["S01", *cells])], ends)
    found = session("freesurfer7/hypothalamus", {"S/mri/hypothalamic_subunits_volumes.v1.csv": content})
    regions = ("anterior-inferior", "tubular inferior")
    assert found.rows == [
        *(("left", region, cell) for region, cell in zip(regions, cells, strict=False)),
        *(("right", region, cell) for region, cell in zip(regions, cells[2:], strict=False)),
        *(("left", "whole", cells[4]), ("right", "whole", cells[5])),
    ]


def test_of_two_versions_the_newest_is_read() -> None:
    files = {
        f"mri/{side}h.hippoSfVolumes-T1.v{version}.txt": f"CA1 {version}.5\nWhole_hippocampus 3400.3\n"
        for version in (10, 21, 9)
        for side in "lr"
    }
    found = session("freesurfer7/hippoSfVolumes", files)
    assert [row for row in found.rows if row[1] == "CA1"] == [
        ("left", "CA1", "21.5"),
        ("right", "CA1", "21.5"),
    ]
    del files["mri/rh.hippoSfVolumes-T1.v21.txt"]
    assert session("freesurfer7/hippoSfVolumes", files).notes == (
        "the sides are of different versions: v21 left and v10 right",
    )


def test_multispectral_subfields_are_not_taken() -> None:
    files = {"mri/lh.hippoSfVolumes-T1-T2.v21.txt": "Whole_hippocampus 1\n"}
    assert session("freesurfer7/hippoSfVolumes", files).rows == []


@pytest.mark.parametrize(
    ("key", "path", "content", "sentence"),
    [
        ("hippoSfVolumes", "lh.hippoSfVolumes-T1.v21.txt", "CA1 1.5\n", "no Whole_hippocampus"),
        (
            "hippoSfVolumes",
            "lh.hippoSfVolumes-T1.v21.txt",
            "CA1 1.5 2\nWhole_hippocampus 3\n",
            "line 1 has 3 fields",
        ),
        (
            "hippoSfVolumes",
            "lh.hippoSfVolumes-T1.v21.txt",
            "CA1\nWhole_hippocampus 3\n",
            "line 1 has 1 fields",
        ),
        (
            "hippoSfVolumes",
            "lh.hippoSfVolumes-T1.v21.txt",
            "CA1 1\nCA1 2\nWhole_hippocampus 3\n",
            "CA1 twice",
        ),
        ("amygNucVolumes", "lh.amygNucVolumes-T1.v21.txt", "Whole_amygdala big\n", "'big', not a number"),
        ("brainstem", "brainstemSsVolumes.v12.txt", "<html></html>", "web page"),
        (
            "thalamus",
            "ThalamicNuclei.v12.T1.volumes.txt",
            "Left-Whole_thalamus 1\n",
            "no Right-Whole_thalamus",
        ),
        (
            *("thalamus", "ThalamicNuclei.v12.T1.volumes.txt"),
            *("AV 1\nLeft-Whole_thalamus 1\nRight-Whole_thalamus 2\n", "does not begin with Left- or Right-"),
        ),
        (
            "hypothalamus",
            "hypothalamic_subunits_volumes.v1.csv",
            "subject,whole left\nS,1,2\n",
            "3 cells where the header has 2",
        ),
        ("hypothalamus", "hypothalamic_subunits_volumes.v1.csv", "subject,whole left\nS,x\n", "not a number"),
        ("hypothalamus", "hypothalamic_subunits_volumes.v1.csv", "subject,whole left\n", "no rows"),
        (
            "hypothalamus",
            "hypothalamic_subunits_volumes.v1.csv",
            "subject,whole left\nS,1\nT,2\n",
            "2 rows of values",
        ),
        ("hypothalamus", "hypothalamic_subunits_volumes.v1.csv", "subject,volume\nS,1\n", "names no side"),
    ],
)
def test_what_is_no_subregion_file_is_refused(key: str, path: str, content: str, sentence: str) -> None:
    with pytest.raises(ParseError, match=sentence):
        session(f"freesurfer7/{key}", {path: content})


def test_wide_names_are_clear() -> None:
    tables = all_tables()
    assert tables["freesurfer7/aseg"].wide and tables["freesurfer7/aseg"].wide.keys == (
        "region",
        "measurement",
    )
    assert tables["freesurfer7/aparc"].wide and tables["freesurfer7/aparc"].wide.keys == (
        "side",
        "region",
        "measurement",
    )
    assert tables["freesurfer7/brainstem"].wide and tables["freesurfer7/brainstem"].wide.keys == ("region",)
