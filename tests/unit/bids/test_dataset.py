"""A session's files under BIDS names, labels, and the bytes of sidecars."""

from __future__ import annotations

import gzip
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatfs.bids import file_names, sidecars
from xnatfs.bids import metadata_files as texts
from xnatfs.bids.bids_image import ScanFiles
from xnatfs.bids.dataset import BidsPlan, Same, Sidecar, Text, arrange
from xnatfs.bids.default_rules import usual_map
from xnatfs.bids.image_files import picture
from xnatfs.bids.map_file import parse
from xnatfs.demo.data import images
from xnatfs.server.records import ExperimentRecord, FileRecord, Owner, ScanRecord


def file(scan: str, path: str, label: str = "NIFTI") -> FileRecord:
    return FileRecord(Owner("scan", "E1", scan), 7, label, path, 1000, "")


def one(
    id: str, type: str, files: list[str], sidecars: tuple[str, ...] = (), frames: str = "10", **more: str
) -> ScanFiles:
    record = ScanRecord(
        *("E1", id, type, more.get("description", type), more.get("quality", "usable"), frames),
        start_time=more.get("time", ""),
    )
    return ScanFiles(
        record, "NIFTI", [file(id, path) for path in files], [file(id, path, "BIDS") for path in sidecars]
    )


def plan(*scans: ScanFiles, rules: str = "") -> BidsPlan:
    return arrange("01", "A", scans, parse(rules, "mine").over(usual_map()))


def reasons(found: BidsPlan) -> dict[str, str]:
    return {row.scan.id: row.reason for row in found.unmapped}


def test_runs_are_numbered_in_scan_order_where_there_are_several() -> None:
    found = plan(one("10", "T1", ["b.nii.gz"]), one("2", "T1", ["a.nii.gz"]), one("3", "T2", ["c.nii"]))
    assert list(found.files) == [
        "anat/sub-01_ses-A_run-01_T1w.nii.gz",
        "anat/sub-01_ses-A_run-02_T1w.nii.gz",
        "anat/sub-01_ses-A_T2w.nii",
    ]
    assert found.files["anat/sub-01_ses-A_run-01_T1w.nii.gz"] == Same(file("2", "a.nii.gz"))
    always = plan(one("3", "T2", ["c.nii"]), rules='runs = "always"')
    assert list(always.files) == ["anat/sub-01_ses-A_run-01_T2w.nii"]


def names_by_scan(found: BidsPlan) -> dict[str, str]:
    return {row.scan.id: row.filename.partition("ses-A_")[2].partition(".")[0] for row in found.rows}


def test_runs_are_numbered_by_time_where_all_scans_have_one() -> None:
    """A console that was restarted counts from 1 again; a session past midnight goes on."""
    late = [one("3", "T1", ["a.nii"], time="23:58:00"), one("1", "T1", ["b.nii"], time="00:04:00.5")]
    for more in ([], [one("4", "report", [])], [one("5", "late", [], time="09:00:00")]):
        assert names_by_scan(plan(*late, *more)) == {"3": "run-01_T1w", "1": "run-02_T1w"}
    assert names_by_scan(plan(*late, one("4", "T2", ["c.nii"]))) == {
        "1": "run-01_T1w",
        "3": "run-02_T1w",
        "4": "T2w",
    }


def test_of_repeats_the_last_whole_one_is_kept_by_choice() -> None:
    scans = [
        one("2", "REST", ["a_e1.nii", "a_e2.nii"], time="09:00:00"),
        one("4", "REST", ["b_e1.nii", "b_e2.nii"], time="09:20:00"),
        one("5", "REST", ["c_e1.nii", "c_e2.nii"], frames="3", time="09:40:00"),  # broken off
    ]
    found = plan(*scans, rules='repeats = "last"')
    assert [row.source for row in found.rows] == ["b_e1.nii", "b_e2.nii"]
    assert "run-" not in "".join(found.files)
    assert reasons(found) == dict.fromkeys(
        "25", "scan 4 is the last one of its name, and only that is wanted"
    )
    rule = '[[rule]]\ntype = "REST"\nto = "func/bold"\nentities = { task = "rest" }\nrepeats = "runs"'
    assert len(plan(*scans, rules=f'repeats = "last"\n{rule}').rows) == 6


def test_what_belongs_together_has_one_number() -> None:
    """Counted by itself, the reference of the second series would be run 1, the first one's name."""
    found = plan(
        one("1", "BOLD", ["a.nii"], description="bold_faces"),
        one("2", "BOLD", ["r.nii"], description="bold_faces_SBRef", frames="1"),
        one("3", "BOLD", ["b.nii"], description="bold_faces"),
        one("4", "gre_field_mapping", ["f_e1.nii", "f_e1.json", "f_e2.nii", "f_e2.json"]),
        one("5", "gre_field_mapping", ["g_e1.nii", "g_e1.json", "g_e2.nii", "g_e2.json"]),
        one("6", "gre_field_mapping", ["g_e2_ph.nii"]),
    )
    assert names_by_scan(found) == {
        "1": "task-faces_run-01_bold",
        "2": "task-faces_run-02_sbref",
        "3": "task-faces_run-02_bold",
        "4": "run-01_magnitude2",
        "5": "run-02_magnitude2",
        "6": "run-02_phasediff",
    }
    made = found.files["fmap/sub-01_ses-A_run-02_phasediff.json"]
    assert isinstance(made, Sidecar) and made.borrowed["EchoTime1"] == file("5", "g_e1.json")


def test_a_field_map_belongs_to_what_is_closest_to_it_by_choice() -> None:
    rules = """
[[rule]]
type = "SE_EPI"
to = "fmap/epi"
entities = { dir = "AP" }
intended_for = "func/bold"
closest = true
b0_field = "epi"
sidecar = { PhaseEncodingDirection = "j-", TotalReadoutTime = 0.05 }
"""
    found = plan(
        one("1", "SE_EPI", ["e.nii"], time="09:00:00"),
        one("2", "REST", ["r.nii"], time="09:05:00"),
        one("3", "REST", ["s.nii"], time="09:50:00"),
        one("4", "SE_EPI", ["f.nii"], time="09:55:00"),
        rules=rules,
    )

    def fields(path: str) -> dict[str, object]:
        made = found.files[path]
        assert isinstance(made, Sidecar)
        return dict(made.fields)

    for run in ("01", "02"):
        bold = f"func/sub-01_ses-A_task-rest_run-{run}_bold"
        field_map = fields(f"fmap/sub-01_ses-A_dir-AP_run-{run}_epi.json")
        assert field_map["IntendedFor"] == [f"bids::sub-01/ses-A/{bold}.nii"]
        assert (
            field_map["B0FieldIdentifier"] == f"epi_run{int(run)}" == fields(f"{bold}.json")["B0FieldSource"]
        )


def test_diffusion_needs_its_gradients() -> None:
    whole = plan(one("1", "DWI", ["d.nii.gz", "d.bval", "d.bvec", "d.json"]))
    assert {path.partition("_dwi")[2] for path in whole.files} == {".nii.gz", ".bval", ".bvec", ".json"}
    assert all(isinstance(what, Same) for what in whole.files.values())
    assert reasons(plan(one("1", "DWI", ["d.nii.gz", "d.bval"]))) == {
        "1": "dwi/dwi needs a file bvec beside the image"
    }
    plain = plan(one("1", "DWI", ["dwi.nii.gz", "bvals", "bvecs"]))
    assert plain.files["dwi/sub-01_ses-A_dwi.bval"] == Same(file("1", "bvals"))


def test_echoes_and_parts_from_file_names() -> None:
    found = plan(one("1", "REST", ["r_e1.nii.gz", "r_e2.nii.gz", "r_e1_ph.nii.gz", "r_e2_ph.nii.gz"]))
    assert [path for path in found.files if path.endswith("gz")] == [
        "func/sub-01_ses-A_task-rest_echo-1_bold.nii.gz",
        "func/sub-01_ses-A_task-rest_echo-2_bold.nii.gz",
        "func/sub-01_ses-A_task-rest_echo-1_part-phase_bold.nii.gz",
        "func/sub-01_ses-A_task-rest_echo-2_part-phase_bold.nii.gz",
    ]
    assert list(plan(one("1", "T2*", ["t_e1.nii", "t_e2.nii"])).files) == [
        "anat/sub-01_ses-A_echo-1_MEGRE.nii",
        "anat/sub-01_ses-A_echo-2_MEGRE.nii",
    ]
    assert list(plan(one("1", "T2*", ["t_e1.nii"])).files) == ["anat/sub-01_ses-A_T2starw.nii"]


def test_field_maps() -> None:
    magnitude = one("1", "gre_field_mapping", ["f_e1.nii", "f_e1.json", "f_e2.nii", "f_e2.json"])
    found = plan(magnitude, one("2", "gre_field_mapping", ["f_e2_ph.nii", "f_e2_ph.json"]))
    assert {
        "fmap/sub-01_ses-A_magnitude1.nii",
        "fmap/sub-01_ses-A_magnitude2.nii",
        "fmap/sub-01_ses-A_phasediff.nii",
    } < set(found.files)
    made = found.files["fmap/sub-01_ses-A_phasediff.json"]
    assert isinstance(made, Sidecar) and made.borrowed == {
        "EchoTime1": file("1", "f_e1.json"),
        "EchoTime2": file("1", "f_e2.json"),
    }
    assert reasons(plan(one("2", "gre_field_mapping", ["f_ph.nii"]))) == {
        "2": "fmap/phasediff requires EchoTime1 in a sidecar, and there is none"
    }
    assert reasons(plan(one("1", "SE_EPI_AP", ["e.nii"]))) == {
        "1": "fmap/epi requires PhaseEncodingDirection in a sidecar, and there is none"
    }


def test_what_a_map_says_of_sidecars() -> None:
    rules = """
[[rule]]
type = "SE_EPI"
to = "fmap/epi"
entities = { dir = "AP" }
intended_for = "func"
sidecar = { PhaseEncodingDirection = "j-", TotalReadoutTime = 0.05 }
[[rule]]
type = "perf"
to = "perf/asl"
aslcontext = ["control", "label"]
"""
    found = plan(
        one("1", "SE_EPI", ["e.nii"]),
        one("2", "REST", ["r.nii.gz"]),
        one("3", "perf", ["p.nii", "p.json"], frames="4"),
        rules=rules,
    )
    made = found.files["fmap/sub-01_ses-A_dir-AP_epi.json"]
    assert isinstance(made, Sidecar) and made.sources == []
    assert made.fields["IntendedFor"] == ["bids::sub-01/ses-A/func/sub-01_ses-A_task-rest_bold.nii.gz"]
    assert found.files["perf/sub-01_ses-A_aslcontext.tsv"] == Text(
        b"volume_type\ncontrol\nlabel\ncontrol\nlabel\n"
    )
    assert reasons(plan(one("3", "ASL", ["p.nii", "p.json"]))) == {
        "3": "perf/asl needs a file aslcontext.tsv beside the image"
    }


def test_sidecars_from_the_resource_bids() -> None:
    found = plan(
        one("1", "T1", ["deep/a.nii.gz"], ("sub-x_T1w.json",)),
        one("2", "REST", ["r.nii.gz", "s.nii.gz"], ("s.json", "r.json", "r_events.tsv")),
    )
    assert found.files["anat/sub-01_ses-A_T1w.json"] == Same(file("1", "sub-x_T1w.json", "BIDS"))
    second = found.files["func/sub-01_ses-A_task-rest_run-02_bold.json"]
    assert isinstance(second, Sidecar) and second.original == file("2", "s.json", "BIDS") and second.header
    assert second.fields == {"TaskName": "rest"}
    assert found.files["func/sub-01_ses-A_task-rest_run-01_events.tsv"] == Same(
        file("2", "r_events.tsv", "BIDS")
    )


def test_what_is_left_out_is_told() -> None:
    found = plan(
        one("1", "T1", ["a.nii.gz"], quality="unusable"),
        one("2", "T1", ["a.nii.gz", "a.nii", "a_Crop_1.nii.gz"]),
        one("3", "T1", ["readme.txt"]),
        ScanFiles(ScanRecord("E1", "4", "T1")),
        one("5", "REST", ["r.nii"], frames="1"),
        one("6", "mine", ["m.nii"], frames="1"),
        one("7", "MEGRE1", ["m.nii"]),
        rules='[[rule]]\ntype = "mine"\nto = "func/bold"\nentities = { task = "x" '
        '}\n[[rule]]\ntype="MEGRE1"\nto="anat/MEGRE"',
    )
    assert list(found.files) == ["anat/sub-01_ses-A_T1w.nii.gz"]
    assert [(row.scan.id, row.reason) for row in found.unmapped] == [
        ("1", "its quality is unusable"),
        ("2", "the same image as another of this name"),
        ("2", "made from another image (Crop_1)"),
        ("3", "it has no .nii or .nii.gz"),
        ("4", "no resource NIFTI or NIFTI_RAW with images"),
        ("5", "func/bold needs 2 or more frames, it has 1"),
        ("6", "bold has a time axis, this has 1 frame"),
        ("7", "anat/MEGRE needs the entity echo, which nothing provides"),
    ]


def test_a_name_is_given_once() -> None:
    rules = '[[rule]]\ntype = "T1"\nto = "anat/T1w"\nentities = { run = "1" }'
    found = plan(one("1", "T1", ["a.nii"]), one("2", "T1", ["b.nii"]), rules=rules)
    assert list(found.files) == ["anat/sub-01_ses-A_run-01_T1w.nii"] and reasons(found) == {
        "2": "it has the same name as scan 1"
    }


_TYPES = st.sampled_from(
    [
        "T1",
        "REST",
        "DWI",
        "gre_field_mapping",
        "T2*",
        "FLAIR",
        "x",
        "",
        "fMRI é",
        "SE_EPI_PA",
        "pcasl",
        "SWI mag",
    ]
)
_FILES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "d/a"]),
        st.sampled_from(["", "_e1", "_e2", "_ph"]),
        st.sampled_from([".nii", ".nii.gz", ".json", ".bval", ".bvec"]),
    ),
    max_size=7,
    unique=True,
)


@given(st.lists(st.tuples(_TYPES, _FILES, st.sampled_from(["", "1", "9"])), max_size=5))
def test_every_image_has_one_legal_name_or_a_reason(
    scans: list[tuple[str, list[tuple[str, str, str]], str]],
) -> None:
    given = [
        one(str(n), type, ["".join(parts) for parts in files], frames=frames)
        for n, (type, files, frames) in enumerate(scans)
    ]
    found = plan(*given)
    for path in found.files:
        assert re.fullmatch(
            r"(anat|func|dwi|fmap|perf)/sub-01_ses-A(_[a-z]+-[A-Za-z0-9]+)*_[A-Za-z0-9]+(\.nii|\.nii\.gz|\.json|\.bval|\.bvec|\.tsv)",
            path,
        )
    every = {(it.scan.id, record.path) for it in given for record in it.files if picture(record)}
    placed = [(row.scan.id, row.source) for row in found.rows]
    told = [(row.scan.id, row.source) for row in found.unmapped if row.source]
    assert sorted(placed + told) == sorted(every)
    used = [what.record for what in found.files.values() if isinstance(what, Same) and picture(what.record)]
    assert len(used) == len(set(used)) == len(placed)


# --- labels -------------------------------------------------------------------------------------------------


def test_labels_are_legal_and_the_oldest_keeps_the_plain_one() -> None:
    found = file_names.labels({"X_S10": "a_1", "X_S9": "a-1", "X_S11": "A1", "X_S12": "é ñ ø", "X_S13": "¿?"})
    assert found == {"X_S9": "a1", "X_S10": "a1xXS10", "X_S11": "A1xXS11", "X_S12": "eno", "X_S13": "XS13"}


@given(
    st.dictionaries(st.from_regex(r"[A-Z]_S\d{1,3}", fullmatch=True), st.text(max_size=6), max_size=8),
    st.text(max_size=6),
)
def test_labels_stay_when_a_later_one_comes(texts: dict[str, str], later: str) -> None:
    before = file_names.labels(texts)
    assert len({label.lower() for label in before.values()}) == len(texts)
    assert all(re.fullmatch(r"[A-Za-z0-9]+", label) for label in before.values())
    after = file_names.labels({**texts, "Z_S9999": later})
    assert {identity: after[identity] for identity in before} == before


@pytest.mark.parametrize(
    ("label", "subject", "text"),
    [
        ("sub001_MR1", "sub001", "_MR1"),
        ("MR1", "sub001", "MR1"),
        ("sub001", "sub001", "sub001"),
        ("sub-01_ses-02", "sub-01", "02"),
        ("sub0012", "sub001", "sub0012"),
    ],
)
def test_a_session_is_named_without_its_subject(label: str, subject: str, text: str) -> None:
    assert file_names.session_text(label, subject) == text


# --- sidecars -----------------------------------------------------------------------------------------------


def test_a_sidecar_keeps_its_own_text() -> None:
    original = b'{\n\t"RepetitionTime": 2.00000000000000001,\n\t"EchoTime": 3e-2\n}\n'
    assert sidecars.with_fields(original, {"EchoTime": 9}) == original
    made = sidecars.with_fields(original, {"TaskName": "r\u00e9st", "EchoTime": 9})
    assert made.startswith(original[:58]) and json.loads(made) == {
        "RepetitionTime": 2.0,
        "EchoTime": 0.03,
        "TaskName": "r\u00e9st",
    }
    assert json.loads(sidecars.with_fields(b"\xef\xbb\xbf{ }", {"A": [1]})) == {"A": [1]}
    assert json.loads(sidecars.with_fields(b"no json", {"A": 1})) == {"A": 1}
    assert sidecars.with_fields(b"", {}) == b"{}\n"


def test_the_repetition_time_of_a_header() -> None:
    shape = (4, 4, 3)
    series = images.nifti(images.series("k", shape, 5), images.affine_of(shape, (1.0, 1.0, 1.0)), tr=2.2)
    assert sidecars.repetition_time(series[: sidecars.HEADER_BYTES]) == 2.2
    assert sidecars.repetition_time(gzip.decompress(series)) == 2.2
    volume = sidecars.repetition_time(
        images.nifti(images.head("k", shape), images.affine_of(shape, (1.0, 1.0, 1.0)))
    )
    assert volume is None
    assert sidecars.repetition_time(b"\x1f\x8bbroken") is None and sidecars.repetition_time(b"") is None


def test_tables_have_one_line_a_row_whatever_a_label_has() -> None:
    assert texts.table(["a", "b"], [["x\ty\n", ""]]) == b"a\tb\nx y\tn/a\n"
    experiment = ExperimentRecord(
        "E1", "l", "S1", "s", "xnat:mrSessionData", "2024-02-10", None, "", "10:30:00.0"
    )
    assert texts.acquired(experiment) == "2024-02-10T10:30:00"
    assert texts.acquired(ExperimentRecord("E1", "l", "S1", "s", "t", "", None, "", "10:30:00")) == ""
