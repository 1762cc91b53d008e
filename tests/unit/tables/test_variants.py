"""What editors, systems and locales do to text files: the same rows come out, or a sentence."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from tests.unit.tables.support import aparc_file, aseg_file, session
from xnatfs.tables.spec import ParseError, csv_table

ROW = ("4", "9000", "9100.5", "Left-Lateral-Ventricle", "25.1000", "10.2000", "4.0000", "80.0000", "76.0000")
MEASURES = [("BrainSegVol", "1100000.500000", "mm^3"), ("eTIV", "1500000.250000", "mm^3")]
CORTEX = [
    ("NumVert", "120000", "unitless"),
    ("WhiteSurfArea", "80000.5", "mm^2"),
    ("MeanThickness", "2.45", "mm"),
]
ASEG = aseg_file(MEASURES, [("1", *ROW), ("2", *ROW[:3], "Right-Putamen", *ROW[4:])])
APARC = aparc_file(CORTEX, [(f"region{at}", *["1"] * 3, *["2.5"] * 6) for at in range(34)])
HIPPO = "CA1 123.456789\nGC-ML-DG 1.5\nWhole_hippocampus 3412.25\n"

FILES: dict[str, dict[str, str]] = {
    "freesurfer7/aseg": {"S/stats/aseg.stats": ASEG},
    "freesurfer7/aparc": {f"S/stats/{side}h.aparc.stats": APARC for side in "lr"},
    "freesurfer7/hippoSfVolumes": {f"S/mri/{side}h.hippoSfVolumes-T1.v21.txt": HIPPO for side in "lr"},
    "freesurfer7/brainstem": {
        "S/mri/brainstemSsVolumes.v12.txt": "Medulla 4600.5\nPons 15100.25\nWhole_brainstem 27100.5\n"
    },
    "freesurfer7/thalamus": {
        "S/mri/ThalamicNuclei.v12.T1.volumes.txt": "Left-AV 1.5\nLeft-Whole_thalamus "
        "9\nRight-Whole_thalamus 8\n"
    },
    "ashs/volumes": {
        "final/S_left_corr_nogray_volumes.txt": "S left CA1 26 678.901\nS left CA2+3 26 12.5\n",
        "final/S_right_corr_nogray_volumes.txt": "S right CA1 26 670.901\nS right CA2+3 26 13.5\n",
        "final/S_icv.txt": "S 1.23456e+06\n",
    },
}


def _lines(change: Callable[[str], str]) -> Callable[[str], bytes]:
    return lambda text: "".join(change(line) for line in text.splitlines(keepends=True)).encode()


HARMLESS: dict[str, Callable[[str], bytes]] = {
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR alone": lambda text: text.replace("\n", "\r").encode(),
    "blanks before each line": _lines(lambda line: "  " + line),
    "blanks behind each line": _lines(lambda line: line[:-1] + " \t \n"),
    "blank lines between and at the end": _lines(lambda line: line + "  \n\n"),
    "remarks": lambda text: f"# by hand, 5, mm\n{text}# the end\n".encode(),
    "a remark in latin-1 with a control character": lambda text: (
        b"# user \xc5\x85se \x85 \xe9 at lab\n" + text.encode()
    ),
    "a remark with other line separators": lambda text: (
        "# jos\u00e9 \u2028 \u0085 \x0b \x0c \x1c here\n" + text
    ).encode(),
}


@pytest.mark.parametrize("how", HARMLESS)
@pytest.mark.parametrize("key", FILES)
def test_what_changes_no_number_changes_no_row(key: str, how: str) -> None:
    plain = session(key, FILES[key])
    found = session(key, {path: HARMLESS[how](text) for path, text in FILES[key].items()})
    assert found.rows == plain.rows and len(plain.rows) > 2
    assert found.notes == plain.notes


def test_tabs_in_the_header_of_a_stats_file() -> None:
    tabbed = ASEG.replace("# Measure ", "#\tMeasure\t").replace("# ColHeaders ", "#\tColHeaders\t")
    assert tabbed != ASEG
    assert session("freesurfer7/aseg", {"aseg.stats": tabbed}) == session(
        "freesurfer7/aseg", {"aseg.stats": ASEG}
    )


@pytest.mark.parametrize("key", FILES)
def test_a_decimal_comma_is_never_taken_for_another_number(key: str) -> None:
    files = {path: text.replace(".", ",") for path, text in FILES[key].items()}
    with pytest.raises(ParseError, match=r"not a number|decimal comma"):
        session(key, files)


def test_nor_in_the_header_alone() -> None:
    told = "BrainSegVol is '1100000,500000': a decimal comma"
    with pytest.raises(ParseError, match=told):
        session("freesurfer7/aseg", {"aseg.stats": ASEG.replace("1100000.500000", "1100000,500000")})


def test_more_columns_are_given_if_the_header_names_them_and_refused_if_not() -> None:
    more = "".join(
        line
        if line.startswith("#") and "ColHeaders" not in line
        else f"{line[:-1]} {'Extra' if line[0] == '#' else '7.5'}\n"
        for line in APARC.splitlines(keepends=True)
    )
    files = FILES["freesurfer7/aparc"]
    found = session("freesurfer7/aparc", dict.fromkeys(files, more.replace("NTableCols 10", "NTableCols 11")))
    assert [row for row in found.rows if row[1] != "Extra"] == session("freesurfer7/aparc", files).rows
    assert found.rows[-1] == ("right", "Extra", "region33", "7.5")
    with pytest.raises(ParseError, match="11 fields where the table has 10 columns"):
        session("freesurfer7/aparc", dict.fromkeys(files, more.replace(" Extra\n", "\n")))


def test_a_missing_number_of_ashs_is_noted() -> None:
    files = dict(FILES["ashs/volumes"])
    files["final/S_left_corr_nogray_volumes.txt"] = "S left CA1 26 nan\nS left CA2+3 26 12.5\n"
    found = session("ashs/volumes", files)
    assert found.rows[0] == ("left", "CA1", "26", "")
    assert found.notes == ("1 of its values is not a number (nan or inf) and left empty",)


def test_blank_lines_in_a_csv_file_are_no_rows() -> None:
    assert csv_table(io.BytesIO(b"a,b\n1,2\n   \n3,4\n \t\n")).rows == [("1", "2"), ("3", "4")]
    with pytest.raises(ParseError, match="empty"):
        csv_table(io.BytesIO(b'""\n'))
