"""The map: rules, their order, the usual ones, and one plain sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from xnatfs.bids import file_names
from xnatfs.bids.default_rules import usual_map
from xnatfs.bids.map_file import parse, user_map
from xnatfs.bids.mapping import BidsMap, BidsPlace, Nowhere
from xnatfs.bids.patterns import Bounded as bounded
from xnatfs.bids.patterns import pattern, task_of
from xnatfs.bids.schema import ENTITIES, KINDS
from xnatfs.errors import UsageError
from xnatfs.server.records import ScanRecord


def scan(type: str, description: str = "", frames: str = "", quality: str = "usable") -> ScanRecord:
    return ScanRecord("E1", "1", type, description, quality, frames)


def where(one: ScanRecord, file: str = "x.nii.gz", rules: BidsMap | None = None) -> str:
    """`datatype/suffix` with entities, or the reason."""
    found = (rules or usual_map()).place(one, file)
    if isinstance(found, Nowhere):
        return found.reason
    return f"{found.datatype}/{found.suffix}" + "".join(
        f" {name}-{value}" for name, value in found.entities.items()
    )


@pytest.mark.parametrize(
    ("type", "description", "frames", "expected"),
    [
        ("T1_ALFA1", "", "40", "anat/T1w"),
        ("MPRAGE", "", "", "anat/T1w"),
        ("t1_mprage_sag_p2_iso", "t1_mprage_sag_p2_iso", "176", "anat/T1w"),
        ("3D FSPGR", "Ax 3D FSPGR BRAVO", "180", "anat/T1w"),
        ("T1 FLAIR", "", "20", "anat/T1w acq-flair"),
        ("T2_ALFA1", "", "24", "anat/T2w"),
        ("t2 flair 3d", "", "", "anat/FLAIR"),
        ("x", "t2_space_dark-fluid_sag_DarkFluid", "", "anat/FLAIR"),
        ("T2*", "", "", "anat/T2starw"),
        ("x", "T2star_gre", "", "anat/T2starw"),
        ("PD", "", "", "anat/PDw"),
        ("TOF", "", "", "anat/angio"),
        ("x", "mp2rage_INV1", "", "anat/MP2RAGE inv-1"),
        ("x", "mp2rage_UNI_Images", "", "anat/UNIT1"),
        ("SWI", "Mag_Images SWI mag", "", "anat/T2starw acq-swi part-mag"),
        ("DWI", "DTI 6 directions b1000", "7", "dwi/dwi"),
        ("DTI_64", "", "", "dwi/dwi"),
        ("ep2d_diff", "ep2d_diff_mddw_64_PA", "65", "dwi/dwi dir-PA"),
        ("DTI", "ep2d_diff_SBRef", "1", "dwi/sbref"),
        ("REST", "rest fMRI", "10", "func/bold task-rest"),
        ("fMRI", "cmrr_mbep2d_bold_faces_run1", "200", "func/bold task-faces"),
        ("BOLD", "task-nback_run-2", "200", "func/bold task-nback"),
        ("BOLD", "bold_faces_SBRef", "1", "func/sbref task-faces"),
        ("gre_field_mapping", "", "60", "fmap/magnitude1"),
        ("fmap", "SE_EPI_AP", "3", "fmap/epi dir-AP"),
        ("x", "SpinEchoFieldMap_PA", "3", "fmap/epi dir-PA"),
        ("ASL", "tgse_pcasl", "", "perf/asl"),
        ("x", "pcasl M0", "", "perf/m0scan"),
    ],
)
def test_the_usual_types(type: str, description: str, frames: str, expected: str) -> None:
    assert where(scan(type, description, frames)) == expected


@pytest.mark.parametrize(
    ("type", "description", "frames", "reason"),
    [
        ("localizer", "3-plane localizer", "3", "a localizer"),
        ("AAHead_Scout", "", "128", "a localizer"),
        ("REST", "rest fMRI", "1", "func/bold needs 2 or more frames, it has 1"),
        (
            "REST",
            "rest fMRI",
            "",
            "func/bold needs 2 or more frames, the server does not say how many it has",
        ),
        ("DTI", "ep2d_diff_ADC", "30", "computed by the scanner from diffusion images"),
        ("SWI", "SWI_Images", "", "BIDS has no name for susceptibility-weighted and projected images"),
        (
            "PET_FDG",
            "FDG static",
            "1",
            "BIDS requires facts about PET, CT and spectroscopy that XNAT does not list",
        ),
        ("", "", "", "no rule matches its type and description"),
    ],
)
def test_what_has_no_place(type: str, description: str, frames: str, reason: str) -> None:
    assert where(scan(type, description, frames)) == reason


def test_a_phase_difference_is_told_by_its_file() -> None:
    one = scan("gre_field_mapping", "", "60")
    assert where(one, "a_e2_ph.nii.gz") == "fmap/phasediff"
    assert where(one, "a_e2.nii.gz") == "fmap/magnitude1"


def test_a_labs_rules_come_first_and_the_first_that_fits_decides() -> None:
    text = """
[[rule]]
type = "MPRAGE"
description = 're:(?P<which>pre|post)'
to = "anat/T1w"
entities = { acq = "{which}", ce = "gad" }
[[rule]]
type = ["MPRAGE", "SPGR*"]
frames = "100-200"
to = "anat/T1w"
entities = { acq = "hires" }
[[rule]]
any = "*rest*"
without = "eyes"
to = "func/bold"
entities = { task = "rest" }
"""
    rules = parse(text, "mine").over(usual_map())
    assert where(scan("mprage", "POST contrast"), rules=rules) == "anat/T1w acq-POST ce-gad"
    assert where(scan("MPRAGE", "", "150"), rules=rules) == "anat/T1w acq-hires"
    assert where(scan("MPRAGE", "", "50"), rules=rules) == "anat/T1w"
    assert (
        where(scan("x", "my rest"), rules=rules) == "func/bold task-rest"
    )  # a lab that says so needs no frames
    assert (
        where(scan("x", "rest eyes"), rules=rules)
        == "func/bold needs 2 or more frames, the server does not say how many it has"
    )
    alone = parse("only = true\n" + text, "mine").over(usual_map())
    assert where(scan("T2"), rules=alone) == "no rule matches its type and description"


def test_settings_of_maps_stand_on_each_other() -> None:
    upper = parse('images = "nii"\nruns = "always"\n[labels]\nsubject = "(\\\\d+)"', "upper")
    lower = parse('images = ["IMG"]\nskip_quality = []\nruns = "needed"', "lower")
    both = upper.over(lower).over(usual_map())
    assert both.images[:2] == ("nii", "IMG") and both.skip_quality == () and both.number_always
    assert both.subject is not None and both.session is None
    assert both.choose(["DICOM", "img", "NII"]) == "NII"
    assert both.fingerprint != usual_map().fingerprint


def test_whether_a_scan_may_have_a_place_is_asked_without_files() -> None:
    rules = usual_map()
    assert rules.may_place(scan("T1")) and rules.may_place(scan("gre_field_mapping"))
    assert not rules.may_place(scan("localizer")) and not rules.may_place(scan("REST", "", "1"))
    assert not rules.may_place(scan("T1", quality="unusable"))


RULE = '[[rule]]\nany = "x"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rule = 3", "m: write rules as [[rule]], one block each"),
        ("[[rule]", "m: Expected"),
        ("colour = 1", "m: 'colour' is not a key of a bids.toml; it has"),
        ("[[rule]]\nto = 'anat/T1w'", "m: rule 1: it has no condition"),
        (RULE, "m: rule 1: it needs either"),
        (RULE + "to = 'anat/T1w'\nskip = 'no'", "m: rule 1: it needs either"),
        (RULE + "to = 'T1w'", "m: rule 1: to must be a datatype and a suffix"),
        (RULE + "to = 'anat/T9w'", "m: rule 1: anat has no suffix 'T9w', but T1w"),
        (RULE + "to = 'func/bold'", "m: rule 1: func/bold needs the entity 'task'"),
        (RULE + "to = 'anat/T1w'\nentities = { dir = 'AP' }", "m: rule 1: anat/T1w has no entity 'dir', but"),
        (
            RULE + "to = 'anat/T1w'\nentities = { acq = '{what}' }",
            "m: rule 1: entities.acq uses {what}, which no pattern",
        ),
        (RULE + "to = 'anat/T1w'\nentities = { echo = 'two' }", "m: rule 1: entities.echo must be a number"),
        (
            RULE + "to = 'anat/T1w'\nentities = { part = 'half' }",
            "m: rule 1: entities.part must be one of mag",
        ),
        (
            RULE + "to = 'anat/T1w'\nentities = { acq = '--' }",
            "m: rule 1: entities.acq needs letters or digits",
        ),
        (RULE + "to = 'anat/T1w'\nframes = 'many'", "m: rule 1: frames must be a number or a range"),
        (RULE + "to = 'anat/T1w'\nframes = '9-3'", "m: rule 1: frames must run from the smaller"),
        (RULE + "to = 'anat/T1w'\naslcontext = 'label'", "m: rule 1: aslcontext is for perf/asl only"),
        (RULE + "to = 'perf/asl'\naslcontext = 'lable'", "m: rule 1: aslcontext must consist of control"),
        (RULE + "to = 'fmap/epi'\nintended_for = 'brain'", "m: rule 1: intended_for needs datatypes"),
        (RULE + "to = 'fmap/epi'\nclosest = true", "m: rule 1: closest needs an intended_for"),
        (RULE + "to = 'fmap/epi'\nb0_field = 'a b'", "m: rule 1: b0_field must be a name"),
        (RULE + "to = 'fmap/epi'\nrepeats = 'first'", 'm: rule 1: repeats must be "runs" or "last"'),
        ("mappings = ['heudiconv']", "m: mappings may have dcm2bids, bidsmap, reproin, bidskit, not"),
        ("reproin = 'yes'", "m: reproin must be true or false"),
        (RULE + "to = 'anat/T1w'\nsidecar = { A = { B = 1 } }", "m: rule 1: sidecar.A must be a text"),
        (RULE + "skip = ' '", "m: rule 1: skip must give the reason"),
        (RULE + "skip = 'x'\nsidecar = { A = 1 }", "m: rule 1: with `skip` there is no sidecar"),
        ("[[rule]]\nany = 're:('\nskip = 'x'", "m: rule 1: any: 're:(' is not a regular expression"),
        ("[[rule]]\nany = []\nskip = 'x'", "m: rule 1: any must be a text or a list of texts"),
        ("[labels]\nsubject = 'S'", "m: labels.subject must be a regular expression with one group"),
        ("[labels]\nvisit = 'S'", "m: 'visit' is not a key of [labels]"),
        ("runs = 'maybe'", 'm: runs must be "needed" or "always"'),
        ("only = 'yes'", "m: only must be true or false"),
    ],
)
def test_one_plain_sentence_for_each_mistake(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, "m")
    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)


def test_the_users_file_and_one_named_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XNATFS_CONFIG_DIR", str(tmp_path))
    assert user_map() is None
    (tmp_path / "bids.toml").write_text('images = "own"')
    (tmp_path / "named.toml").write_text('images = "named"')
    own, named = user_map(), user_map(tmp_path / "named.toml")
    assert own is not None and own.images == ("own",)
    assert named is not None and named.images == ("named", "own")
    with pytest.raises(UsageError, match=r"nothing\.toml cannot be read: No such file"):
        user_map(tmp_path / "nothing.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(UsageError, match="it is not UTF-8"):
        user_map(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("type", "description", "task"),
    [
        ("REST", "", "rest"),
        ("x", "rsfMRI_eyes_open", "rest"),
        ("x", "Resting State", "rest"),
        ("REST", "ep2d_bold_moco_p2", "rest"),
        ("fMRI", "task-Stroop_run-1", "Stroop"),
        ("fMRI", "cmrr_mbep2d_bold_mb4_te30_2mm Emotional Faces run2", "emotionalfaces"),
        ("memory task", "epi 3x3x3", "memory"),
        ("fMRI", "bold", "unknown"),
        ("fMRI", "arrest", "arrest"),
    ],
)
def test_the_task_in_a_description(type: str, description: str, task: str) -> None:
    assert task_of(type, description) == task


def test_what_bids_demands_agrees_with_the_published_schema() -> None:
    schema = pytest.importorskip("bidsschematools.schema").load_schema()
    short = {key: schema.objects.entities[key].name for key in schema.rules.entities}
    order = [short[key] for key in schema.rules.entities]
    assert [one for one in order if one in ENTITIES] == list(ENTITIES)
    for datatype, kinds in KINDS.items():
        groups = list(schema.rules.files.raw[datatype].values())
        for suffix, kind in kinds.items():
            entities = next(dict(group.entities) for group in groups if suffix in group.suffixes)
            known = {short[key] for key in entities}
            assert kind.may <= known, (datatype, suffix, kind.may - known)
            must = {short[key] for key, level in entities.items() if level == "required"} - {"sub", "ses"}
            assert must == kind.must, (datatype, suffix)


def test_places_are_values() -> None:
    found = usual_map().place(scan("T1"), "x.nii")
    assert isinstance(found, BidsPlace) and found.rule.sidecar == {}


def test_the_example_in_the_documentation_is_a_map() -> None:
    text = (Path(__file__).parents[3] / "docs/bids.md").read_text(encoding="utf-8")
    rules = parse(text.split("```toml\n")[1].split("```")[0], "docs/bids.md")
    assert where(scan("MPRAGE", "post Gd"), rules=rules) == "anat/T1w acq-post"
    assert where(scan("rs_1", "", "240"), rules=rules) == "func/bold task-rest dir-AP"
    assert where(scan("x", "phantom"), rules=rules) == "not a subject"


@pytest.mark.timeout(30)
def test_an_expression_without_an_end_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A map may come from the server: `re` would hold up the whole mount with this for hours."""
    with caplog.at_level("WARNING"):
        assert pattern("re:(a|aa)+$").find("a" * 60 + "!") is None
        assert file_names.subject_text("a" * 60 + "!", bounded("(a|aa)+$")) == "a" * 60 + "!"
    assert "takes too long" in caplog.text
    assert pattern("re:(?P<when>PRE|post)").find("x_pre_y") == {"when": "pre"}
    assert file_names.subject_text("study-S012", bounded(r"S(\d+)$")) == "012"
