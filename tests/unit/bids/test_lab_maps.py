"""Mapping files of other programs: what they name, what they leave out, and one sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatfs.bids.default_rules import usual_map
from xnatfs.bids.guesses import Series, read_guess, suggested
from xnatfs.bids.lab_maps import LabFile, LabMap, lab_map
from xnatfs.bids.map_file import parse, user_map
from xnatfs.bids.mapping import LAST, RUNS, BidsMap, MapSource, Nowhere
from xnatfs.errors import UsageError
from xnatfs.server.records import ScanRecord


def scan(description: str, id: str = "1", type: str = "") -> ScanRecord:
    return ScanRecord("E1", id, type, description, "usable", "10")


def lab(*documents: Any, site: Any = None, scans: list[ScanRecord] | None = None, **options: Any) -> LabMap:
    files = [
        LabFile(MapSource(f"file {n}", document if isinstance(document, str) else json.dumps(document), "f"))
        for n, document in enumerate(documents, 1)
    ]
    if site is not None:
        files.append(LabFile(MapSource("the site's", json.dumps(site), "f"), site=True))
    return lab_map(files, scans, **options)


def whole(found: LabMap) -> BidsMap:
    assert found.map is not None, found.problems
    return found.map.over(usual_map())


def where(rules: BidsMap, one: ScanRecord, file: str = "x.nii.gz") -> str:
    """`datatype/suffix` with entities, or the reason."""
    found = rules.place(one, file)
    assert isinstance(found, Nowhere) or rules.may_place(one)  # else its session could be hidden
    if isinstance(found, Nowhere):
        return found.reason
    return f"{found.datatype}/{found.suffix}" + "".join(
        f" {name}-{value}" for name, value in found.entities.items()
    )


# --- XNAT's BIDS maps ---------------------------------------------------------------------------------------

SITE = [
    {"series_description": "MPRAGE_sag", "bidsname": "T1w"},
    {"series_description": "Resting state", "bidsname": "task-rest_bold"},
]
OWN = [
    {"series_description": "resting STATE", "bidsname": "task-eyesopen_run-01_bold"},
    {"series_description": "fieldmap_AP", "bidsname": "dir-AP_epi"},
    {"series_description": "diff_sbref", "bidsname": "sbref"},
    {"series_description": "odd", "bidsname": "task-x_T9w"},
    {"series_description": "not", "bidsname": ""},
]


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("mprage_SAG", "anat/T1w"),  # the site's, whatever the case
        ("Resting state", "func/bold task-eyesopen run-01"),  # the project's own over it
        ("fieldmap_AP", "fmap/epi dir-AP"),
        ("diff_sbref", "dwi/sbref"),
        ("MPRAGE_sag_2", "XNAT's BIDS map does not have its series description"),  # the usual rules would
        ("not", "XNAT's BIDS map leaves it out"),
        ("odd", "XNAT's BIDS map names it 'task-x_T9w', but BIDS has no MR images with the suffix 'T9w'"),
    ],
)
def test_bids_maps_of_xnat(description: str, expected: str) -> None:
    assert where(whole(lab(OWN, site=SITE)), scan(description)) == expected


def test_a_map_of_the_site_alone_leaves_the_rest_to_the_usual_rules() -> None:
    """Else a map that was written for other projects would empty this one's dataset."""
    config = {"descriptions": [{"datatype": "anat", "suffix": "T2w", "criteria": {"SeriesDescription": "x"}}]}
    for site in (SITE, config):
        assert where(whole(lab(site=site)), scan("t1_mprage")) == "anat/T1w"
    assert where(whole(lab(site=SITE)), scan("Resting state")) == "func/bold task-rest"
    assert where(whole(lab(OWN, site=SITE)), scan("t1_mprage")).startswith("XNAT's BIDS map does not have")


def test_a_scan_without_a_description_is_looked_up_by_its_type() -> None:
    assert where(whole(lab(SITE)), scan("", type="mprage_sag")) == "anat/T1w"


def test_the_newer_form_of_bids_maps() -> None:
    rules = whole(
        lab(
            {
                "version": "1.0.0",
                "mappings": [
                    {"pattern": "(?i)^bold", "suffix": "task-any_bold"},
                    {"pattern": "^bold_faces", "suffix": "task-late_bold"},
                    {"pattern": "SE_map", "suffix": "dir-PA_epi", "modality": "fmap"},
                    {"pattern": "(?i)scout"},
                    {"xnat_field": "BOLD_faces", "bidsname": "task-faces_bold"},
                ],
            }
        )
    )
    assert where(rules, scan("bold_FACES")) == "func/bold task-faces"  # exact before patterns
    assert where(rules, scan("bold_faces_2")) == "func/bold task-any"  # the first of these
    assert where(rules, scan("my_SE_map")) == "fmap/epi dir-PA"
    assert where(rules, scan("my_se_map")) == "XNAT's BIDS map does not have its series description"
    assert where(rules, scan("AAScout")) == "XNAT's BIDS map leaves it out"


# --- dcm2bids -----------------------------------------------------------------------------------------------

CONFIG = {
    "dup_method": "dup",
    "post_op": [{"cmd": "touch /tmp/never", "datatype": "anat", "suffix": "T1w"}],
    "extractors": {"SeriesDescription": ["_dir(?P<dir>AP|PA)"]},
    "descriptions": [
        {"id": "t1", "datatype": "anat", "suffix": "T1w", "criteria": {"SeriesDescription": "*mprage*"}},
        {
            "id": "rest",
            "datatype": "func",
            "suffix": "bold",
            "custom_entities": "task-rest",
            "criteria": {"SeriesDescription": {"any": ["rsfMRI*", "REST *"]}, "SeriesNumber": {"gt": 4}},
            "sidecar_changes": {"TaskName": "rest", "Instructions": "Lie still"},
        },
        {
            "datatype": "fmap",
            "suffix": "epi",
            "custom_entities": ["dir", "acq-rest"],
            "criteria": {"SeriesDescription": "SE_*"},
            "sidecar_changes": {"IntendedFor": ["rest"], "B0FieldIdentifier": "se"},
        },
        {"datatype": "dwi", "suffix": "dwi", "criteria": {"SeriesDescription": "*dti*"}},
        {"datatype": "dwi", "suffix": "sbref", "criteria": {"SeriesDescription": "*_SBRef"}},
        {
            "datatype": "anat",
            "suffix": "T2w",
            "criteria": {"SeriesDescription": "T2*", "EchoTime": {"lt": 0.1}},
        },
        {"datatype": "anat", "suffix": "T3w", "criteria": {"SeriesDescription": "T3"}},
    ],
}


@pytest.mark.parametrize(
    ("description", "id", "expected"),
    [
        ("t1_mprage_sag", "2", "anat/T1w"),
        ("T1_MPRAGE", "2", "no description of the dcm2bids configuration fits"),  # case counts
        ("rsfMRI 2mm", "05-MR1", "func/bold task-rest"),
        ("REST a", "4", "no description of the dcm2bids configuration fits"),  # by its number
        ("SE_map_dirPA", "7", "fmap/epi acq-rest dir-PA"),
        ("SE_map", "7", "fmap/epi acq-rest"),
        ("dti_64", "8", "dwi/dwi"),
        ("dti_SBRef", "8", "several descriptions of the dcm2bids configuration fit: number 4, number 5"),
        ("T2_tse", "9", "the dcm2bids configuration decides by EchoTime, which is not known of it"),
        ("T3", "9", "the dcm2bids configuration: description number 7: anat has no suffix 'T3w'"),
        ("BOLD rest", "9", "no description of the dcm2bids configuration fits"),
    ],
)
def test_dcm2bids(description: str, id: str, expected: str) -> None:
    rules = whole(lab(CONFIG))
    assert where(rules, scan(description, id)) == expected
    assert rules.repeats == LAST


def test_what_no_listing_has_the_sidecar_decides() -> None:
    criteria = {
        "T1w": {"SeriesDescription": "x", "ImageType": ["ORIGINAL", "*", "*", "ND"]},
        "T2w": {
            "SeriesDescription": "x",
            "ImageType": {"any": [["DERIVED", "*"], ["A"]]},
            "EchoTime": 0.0049,
        },
        "FLAIR": {"ProtocolName": "flair*", "EchoTime": {"btwe": [0.1, "0.3"]}},
        "PDw": {"SeriesDescription": "y", "SidecarFilename": "*_e2*"},
    }
    rules = whole(
        lab(
            {
                "extractors": {"ProtocolName": "acq-(?P<acq>[a-z]+)"},
                "descriptions": [
                    {"datatype": "anat", "suffix": suffix, "custom_entities": "acq", "criteria": one}
                    for suffix, one in criteria.items()
                ],
            }
        )
    )

    def placed(description: str, **fields: Any) -> str:
        found = rules.place(scan(description), "x.nii", {"SeriesDescription": description, **fields})
        return (
            found.reason if isinstance(found, Nowhere) else " ".join([found.suffix, *found.entities.values()])
        )

    none = "no description of the dcm2bids configuration fits"
    assert rules.asks(scan("x")) and where(rules, scan("x")).endswith("ImageType, which is not known of it")
    assert placed("x", ImageType=["ORIGINAL", "PRIMARY", "M", "ND"], ProtocolName="acq-fast") == "T1w fast"
    assert placed("x", ImageType=["ORIGINAL", "PRIMARY", "M"]) == placed("x", ImageType="ORIGINAL") == none
    assert placed("x", ImageType=["DERIVED", "M"], EchoTime=0.0049) == "T2w"
    assert placed("z", ProtocolName="flair_2d", EchoTime=0.3) == "FLAIR" and placed("z", EchoTime=0.2) == none
    assert placed("y") == "the dcm2bids configuration decides by SidecarFilename, which is not known of it"
    assert not usual_map().asks(scan("x"))
    wrong = {"datatype": "anat", "suffix": "T9w", "criteria": {"SeriesDescription": "x", "EchoTime": 1}}
    right = {**wrong, "suffix": "T1w"}
    assert whole(lab({"descriptions": [wrong, right]})).may_place(scan("x"))
    assert not whole(lab({"descriptions": [wrong]})).may_place(scan("x"))
    config = {"descriptions": [{"datatype": "anat", "suffix": "T1w", "criteria": {"SeriesDescription": "x"}}]}
    assert not whole(lab(config)).asks(scan("x"))


def test_what_dcm2bids_adds_to_sidecars() -> None:
    rules = whole(lab(CONFIG))
    rest = rules.place(scan("rsfMRI", "5"), "x.nii")
    field_map = rules.place(scan("SE_dirAP", "6"), "x.nii")
    assert not isinstance(rest, Nowhere) and not isinstance(field_map, Nowhere)
    assert rest.rule.sidecar == {"TaskName": "rest", "Instructions": "Lie still"} and rest.rule.name == "rest"
    assert field_map.rule.intent.names == ("rest",) and field_map.rule.sidecar == {"B0FieldIdentifier": "se"}


def test_dcm2bids_of_version_2_and_with_expressions() -> None:
    old = {
        "searchMethod": "re",
        "caseSensitive": False,
        "descriptions": [
            {
                "dataType": "func",
                "modalityLabel": "_bold",
                "customLabels": "task-faces_echo-2",
                "criteria": {"SeriesDescription": "faces|emo", "EchoNumber": "2"},
            }
        ],
    }
    rules = whole(lab(old))
    assert where(rules, scan("faces_me"), "f_e2.nii.gz") == "func/bold task-faces echo-2"
    assert (
        where(rules, scan("faces_me"), "f_e3.nii.gz") == "no description of the dcm2bids configuration fits"
    )
    assert where(rules, scan("my_faces"), "f_e2.nii") == "no description of the dcm2bids configuration fits"
    assert rules.repeats == RUNS


def test_dcm2bids_finds_tasks_and_directions_by_itself() -> None:
    one = {"datatype": "func", "suffix": "bold", "criteria": {"SeriesDescription": "*task*"}}
    other = {"dataType": "fmap", "modalityLabel": "epi", "criteria": {"SeriesDescription": "SE"}}
    rules = whole(lab({"auto_extract_entities": True, "descriptions": [one, {**other, "intendedFor": 0}]}))
    assert where(rules, scan("x_task-nback_2mm")) == "func/bold task-nback"
    assert where(rules, scan("SE")).endswith("PhaseEncodingDirection, which is not known of it")
    found = rules.place(scan("SE"), "x.nii", {"SeriesDescription": "SE", "PhaseEncodingDirection": "j-"})
    assert not isinstance(found, Nowhere) and found.entities == {"dir": "AP"}
    assert found.rule.intent.names == ("number 1",)


# --- bidskit ------------------------------------------------------------------------------------------------


def test_bidskits_translator() -> None:
    rules = whole(
        lab(
            {
                "Localizer": ["EXCLUDE_BIDS_Directory", "EXCLUDE_BIDS_Name", "UNASSIGNED"],
                "rsBOLD_MB": ["func", "task-rest_acq-MB_run-01_bold", "UNASSIGNED"],
                "GRE_map": ["fmap", "acq-rest", ["task-rest_acq-MB_run-01_bold"]],
                "wrong": ["anat", "task-rest_bold", []],
            }
        )
    )
    assert where(rules, scan("rsBOLD MB")) == "func/bold task-rest acq-MB run-01"  # `_` as dcm2niix writes
    assert where(rules, scan("Localizer")) == "bidskit's translator excludes it"
    assert where(rules, scan("GRE_map"), "g_e1.nii.gz") == "fmap/magnitude1 acq-rest"
    assert where(rules, scan("GRE_map"), "g_e2_ph.nii.gz") == "fmap/phasediff acq-rest"
    assert where(rules, scan("wrong")).startswith(
        "bidskit's translator names it anat/task-rest_bold, but anat"
    )
    assert where(rules, scan("T1")) == "bidskit's translator does not have its series description"


# --- ReproIn ------------------------------------------------------------------------------------------------

NAMES = [
    ("anat-T1w_acq-MPRAGE__nice", "anat/T1w acq-MPRAGE"),
    ("PU:WIP func_ses-1_task-rest_run-02", "func/bold task-rest run-02"),
    ("func_task-rest_run-1_SBRef", "func/sbref task-rest run-1"),
    ("dwi_dir-AP", "dwi/dwi dir-AP"),
    ("fmap_acq-4mm_dir-PA", "fmap/epi acq-4mm dir-PA"),
    ("fmap_acq-3mm", "fmap/magnitude1 acq-3mm"),
    ("anat-scout_ses-01", "a localizer"),
    ("func_task-rest_run=", "run= in its name means the run of another scan; write the number"),
    ("anat-T1w_color-red", "its name is one of ReproIn's, but 'color-red' is not an entity and its value"),
]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_names_of_reproin(name: str, expected: str) -> None:
    assert where(whole(lab(reproin=True)), scan(name)) == expected


def test_reproin_is_used_where_all_scans_are_named_so_or_by_choice() -> None:
    good = [scan("anat-T1w"), scan("func_task-x"), scan("anat-scout")]
    assert lab(scans=good).map is not None
    assert lab(scans=[*good, scan("t1_mprage")]).map is None
    assert lab(scans=[scan("anat-scout")]).map is None and lab(scans=None).map is None
    assert lab(scans=good, reproin=False).map is None and lab(scans=good, wanted=["bidskit"]).map is None
    rules = whole(lab(reproin=True))
    assert where(rules, scan("t1_mprage")) == "its name is not one of ReproIn's" and rules.repeats == LAST


# --- which ------------------------------------------------------------------------------------------------

TRANSLATOR = {"x": ["anat", "T2w", []]}
BROKEN = {"descriptions": [{"datatype": "anat", "suffix": "T1w"}]}


def test_a_mapping_file_can_be_named_for_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XNATFS_CONFIG_DIR", str(tmp_path))
    named = tmp_path / "Protocol_Translator.json"
    named.write_text(json.dumps(TRANSLATOR))
    found = user_map(named)
    assert found is not None and where(found.over(usual_map()), scan("x")) == "anat/T2w"
    assert found.mappings == ()  # the server is not asked for another
    named.write_text("{")
    with pytest.raises(UsageError, match="json is not used: it is not JSON"):
        user_map(named)


def test_the_order_of_mappings() -> None:
    config = {"descriptions": [{"datatype": "anat", "suffix": "T1w", "criteria": {"SeriesDescription": "x"}}]}
    bids_map = [{"series_description": "x", "bidsname": "FLAIR"}]
    every = (TRANSLATOR, bids_map, config)
    named = [scan("anat-T1w")]

    def used(*documents: Any, **options: Any) -> str:
        return whole(lab(*documents, **options)).sources[0].where

    assert used(*every, scans=named) == "file 3"
    assert used(*every, scans=named, wanted=["bidsmap", "bidskit", "reproin"]) == "file 2"
    assert used(TRANSLATOR, scans=named) == "ReproIn's names (all scans of the project have them)"
    assert used(TRANSLATOR) == "file 1"
    assert used(config, site=config) == "file 1" and used(TRANSLATOR, site=config) == "the site's"
    assert [one.where for one in whole(lab(bids_map, site=bids_map)).sources[:2]] == ["file 1", "the site's"]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("{", "it is not JSON (Expecting property name enclosed in double quotes, line 1)"),
        ("[" * 100_000, "it is nested too deeply"),
        ("7", "it is neither a dcm2bids configuration, nor a BIDS map of XNAT's, nor bidskit's translator"),
        (BROKEN, "description number 1 has no criteria"),
        ({"descriptions": {}}, "its descriptions are not a list of objects"),
        (
            {"descriptions": [{"criteria": {"SeriesDescription": "("}}], "search_method": "re"},
            "description number 1: '(' is not a regular expression: ",
        ),
        (
            {"descriptions": [{"criteria": {"SeriesNumber": {"gt": "x"}}}]},
            "description number 1: a comparison ",
        ),
        ([{"series_description": 7}], "entry 1 has neither a series_description nor a pattern"),
        ([], "it is not a list of series"),
        ([{"pattern": "(", "suffix": "T1w"}], "entry 1: '(' is not a regular expression: "),
        ({"x": ["anat"]}, "'x' has no list of a folder and a name"),
    ],
)
def test_one_sentence_for_each_mistake_and_the_next_is_used(document: Any, problem: str) -> None:
    found = lab(document, TRANSLATOR)
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"file 1 is not used: {problem}") and "\n" not in found.problems[0]
    assert where(whole(found), scan("x")) == "anat/T2w"


_TEXTS = st.sampled_from(
    ["SeriesDescription", "criteria", "any", "gt", "x", "(", "anat", "T1w", "task-", "id"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)
_DESCRIPTION = st.fixed_dictionaries(
    {"criteria": st.dictionaries(_TEXTS, _JSON, max_size=2)},
    optional=dict.fromkeys(("datatype", "suffix", "custom_entities", "sidecar_changes", "id"), _JSON),
)
_OPTIONS = st.sampled_from(["extractors", "search_method", "case_sensitive", "dup_method"])
_KEYS = st.sampled_from(["series_description", "pattern", "bidsname", "suffix"])
_MAPPINGS = st.one_of(
    _JSON,
    st.builds(
        lambda some, more: {"descriptions": some, **more},
        st.lists(_DESCRIPTION, max_size=2),
        st.dictionaries(_OPTIONS, _JSON),
    ),
    st.lists(st.dictionaries(_KEYS, _JSON)),
    st.dictionaries(_TEXTS, st.lists(_JSON, max_size=4)),
)


@given(_MAPPINGS, _TEXTS)
def test_no_mapping_file_is_an_accident(document: Any, description: str) -> None:
    """Whatever the file has, it is used or there is one sentence; nothing else is raised."""
    found = lab(document, scans=None)
    assert (found.map is None) == (len(found.problems) == 1)
    if found.map is not None:
        where(whole(found), scan(description))


# --- dcm2niix's guesses -------------------------------------------------------------------------------------


def test_a_guess_is_a_rule_to_check() -> None:
    def guess(*parts: Any) -> str:
        return read_guess(json.dumps({"BidsGuess": parts}).encode())

    assert guess("anat", "_acq-tfl3_run-2_T1w") == "anat/acq-tfl3_T1w"
    for wrong in (("anat",), ("anat", 7), ()):
        assert guess(*wrong) == ""
    assert read_guess(b"no json") == read_guess(b'{"A": 1}') == ""
    text = suggested(
        {
            Series("x", 'T1* [a] "b"?'): guess("anat", "_acq-tfl3_run-2_T1w"),
            Series("ep2d", ""): guess("func", "_task-rest_dir-AP_run-4_bold"),
            Series("y", "adc\n[[rule]]"): guess("discard", "_run-5_ADC"),
        }
    )
    rules = parse(text, "the suggestion").over(usual_map())
    assert where(rules, scan('t1* [A] "b"?', type="x")) == "anat/T1w acq-tfl3"
    assert where(rules, scan("T1 a b", type="x")) == "anat/T1w"  # the usual rules'
    assert where(rules, scan("faces", type="ep2d")) == "func/bold task-faces dir-AP"
    assert text.splitlines()[-1] == r'# "adc\\n[[rule]]": discard/ADC'
