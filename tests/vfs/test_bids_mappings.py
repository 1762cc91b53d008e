"""A lab's own mapping on the server decides the names in `bids/`: found, shown, replaced, switched off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import read, walk
from tests.vfs.conftest import LIMITS, Compose, Shelf
from xnatfs.demo.model import Configuration
from xnatfs.vfs import Vfs

TOP = "/views/P/bids"
SES = f"{TOP}/sub-s/ses-S"
CONFIG = r"^GET /data/(projects/P/)?config"
DCM2BIDS = {
    "descriptions": [
        {
            "id": "rest",
            "datatype": "func",
            "suffix": "bold",
            "custom_entities": "task-rest",
            "criteria": {"SeriesDescription": "EPI main*"},
            "sidecar_changes": {"Instructions": "Lie still"},
        },
        {
            "datatype": "fmap",
            "suffix": "epi",
            "custom_entities": "dir-AP",
            "criteria": {"SeriesDescription": "EPI map*"},
            "sidecar_changes": {
                "IntendedFor": "rest",
                "PhaseEncodingDirection": "j-",
                "TotalReadoutTime": 0.05,
            },
        },
    ],
    "post_op": [{"cmd": "touch never", "datatype": "func", "suffix": "bold"}],
}
BIDS_MAP = [{"series_description": "T1 OLD", "bidsname": "acq-old_T1w"}]
SITE_MAP = [
    {"series_description": "t1 old", "bidsname": "acq-site_T1w"},
    {"series_description": "EPI main 2", "bidsname": "task-site_bold"},
]


@pytest.fixture
def study(shelf: Shelf) -> Shelf:
    """A session whose descriptions say little to the usual rules. The console was restarted after scan 9, so
    that scan 2 is the later one.
    """
    for id, description, time in (
        ("8", "EPI map", "09:00:00"),
        ("9", "EPI main 1", "09:10:00"),
        ("2", "EPI main 2", "09:30:00"),
        ("3", "T1 old", "09:50:00"),
    ):
        scan = shelf.make.scan(shelf.session, id, "scan", description, frames="10", start_time=time)
        shelf.make.resource(scan, "NIFTI", {f"{id}.nii.gz": b"\x1f\x8b" + id.encode()})
    return shelf


def configure(shelf: Shelf, tool: str, path: str, document: object, site: bool = False) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    held = shelf.archive.configurations if site else shelf.project.configurations
    shelf.server.call(lambda: held.append(Configuration(tool, path, text)))


def images(vfs: Vfs) -> list[str]:
    found = [path for path, _ in walk(vfs, TOP) if path.endswith(".nii.gz")]
    return sorted(
        path.rpartition("/")[2].removeprefix("sub-s_ses-S_").removesuffix(".nii.gz") for path in found
    )


def reasons(vfs: Vfs) -> dict[str, str]:
    lines = read(vfs, f"{TOP}/unmapped.tsv").decode().splitlines()
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    return {row["scan_id"]: row["reason"] for row in rows}


def readme(vfs: Vfs) -> str:
    return read(vfs, f"{TOP}/README").decode()


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_a_dcm2bids_configuration(study: Shelf, compose: Compose, profile: str) -> None:
    study.switches.update({"profile": profile})
    configure(study, "dcm2bids", "bidsconfig", DCM2BIDS)
    configure(study, "bids", "bidsmap", BIDS_MAP)
    vfs = compose(study.server).vfs
    assert images(vfs) == ["dir-AP_epi", "task-rest_run-01_bold", "task-rest_run-02_bold"]
    assert reasons(vfs) == {"3": "no description of the dcm2bids configuration fits"}
    assert read(vfs, f"{SES}/func/sub-s_ses-S_task-rest_run-01_bold.nii.gz") == b"\x1f\x8b9"
    field_map = json.loads(read(vfs, f"{SES}/fmap/sub-s_ses-S_dir-AP_epi.json"))
    assert len(field_map["IntendedFor"]) == 2 and field_map["TotalReadoutTime"] == 0.05
    rest = json.loads(read(vfs, f"{SES}/func/sub-s_ses-S_task-rest_run-02_bold.json"))
    assert rest == {"TaskName": "rest", "Instructions": "Lie still"}
    text = readme(vfs)
    assert "1. dcm2bids/bidsconfig in the configuration of project P (SHA-256 " in text
    assert text.index("dcm2bids/bidsconfig") < text.index("2. the usual rules")
    assert json.loads(read(vfs, f"{TOP}/code/dcm2bids-bidsconfig.json")) == DCM2BIDS
    assert [record.target for record in study.server.requests(CONFIG)] == [
        "/data/projects/P/config?format=json",
        "/data/projects/P/config/dcm2bids/bidsconfig?contents=true",
        "/data/projects/P/config/bids/bidsmap?contents=true",
        "/data/config/bids/bidsmap?contents=true",
    ]


def test_a_criterion_that_no_listing_decides_reads_the_sidecar(shelf: Shelf, compose: Compose) -> None:
    criteria = {"SeriesDescription": "GRE", "ImageType": ["ORIGINAL", "PRIMARY", "*", "NORM"]}
    one = {"datatype": "anat", "suffix": "T1w", "criteria": criteria}
    other = {"datatype": "anat", "suffix": "T2w", "criteria": {"SeriesDescription": "plain"}}
    configure(shelf, "dcm2bids", "bidsconfig", {"descriptions": [one, other]})
    for id, description, kind in (
        *(("1", "GRE", "ND"), ("2", "GRE", "NORM"), ("3", "GRE", "")),
        ("4", "plain", "M"),
    ):
        scan = shelf.make.scan(shelf.session, id, "scan", description)
        sidecar = json.dumps({"SeriesDescription": "GRE", "ImageType": ["ORIGINAL", "PRIMARY", "M", kind]})
        files = {"i.nii.gz": id.encode(), "i.json": sidecar.encode()} if kind else {"i.nii.gz": id.encode()}
        shelf.make.resource(scan, "NIFTI", files)
    vfs = compose(shelf.server).vfs
    assert images(vfs) == ["T1w", "T2w"] and shelf.downloads() == 2  # the sidecars that decide
    assert read(vfs, f"{SES}/anat/sub-s_ses-S_T1w.nii.gz") == b"2"
    assert reasons(vfs) == {
        "1": "no description of the dcm2bids configuration fits",
        "3": "the dcm2bids configuration decides by ImageType, which is not known of it",
    }
    assert images(vfs) == ["T1w", "T2w"] and shelf.downloads() == 3


@pytest.mark.parametrize("profile", ["full", "proven"])
def test_bids_maps_of_project_and_site(study: Shelf, compose: Compose, profile: str) -> None:
    study.switches.update({"profile": profile})
    configure(study, "bids", "bidsmap", BIDS_MAP)
    configure(study, "bids", "bidsmap", SITE_MAP, site=True)
    vfs = compose(study.server).vfs
    assert images(vfs) == ["acq-old_T1w", "task-site_bold"]
    assert reasons(vfs) == dict.fromkeys("89", "XNAT's BIDS map does not have its series description")
    text = readme(vfs)
    assert "1. bids/bidsmap in the configuration of project P (" in text
    assert "2. bids/bidsmap in the configuration of the site (" in text
    assert [name for name, _ in vfs.entries(f"{TOP}/code")] == [
        *("bids.toml", "bids-bidsmap.json", "2-bids-bidsmap.json", "bids.toml.suggested")
    ]


def test_mapping_files_in_resources_of_the_project(study: Shelf, compose: Compose) -> None:
    wrapped = {"mappings": [{"pattern": "main", "suffix": "task-newer_bold", "modality": "func"}]}
    study.make.resource(study.project, "BIDS_bidsmap", {"bidsmap.json": json.dumps(wrapped).encode()})
    translator = {"EPI map": ["EXCLUDE", "EXCLUDE", "UNASSIGNED"], "T1_old": ["anat", "T1w", "UNASSIGNED"]}
    study.make.resource(
        study.project, "XNATFS", {"a\nb/Protocol_Translator.json": json.dumps(translator).encode()}
    )
    study.make.resource(study.project, "OTHER", {"dcm2bids.json": json.dumps(DCM2BIDS).encode()})
    vfs = compose(study.server).vfs
    assert images(vfs) == ["task-newer_run-01_bold", "task-newer_run-02_bold"]
    toml = b'mappings = ["bidskit"]\n'
    study.make.resource(study.project, "XNATFS", {"bids.toml": toml})
    vfs = compose(study.server, "other").vfs
    assert images(vfs) == ["T1w"]
    assert reasons(vfs)["8"] == "bidskit's translator excludes it"
    assert r"a\nb/Protocol_Translator.json in the resource XNATFS" in readme(vfs)  # on one line


def test_names_of_reproin(shelf: Shelf, compose: Compose) -> None:
    for id, name in (("1", "anat-scout"), ("2", "func_task-x_run-1"), ("3", "func_task-x_run-1")):
        scan = shelf.make.scan(shelf.session, id, "scan", name, frames="5")
        shelf.make.resource(scan, "NIFTI", {f"{id}.nii.gz": id.encode()})
    vfs = compose(shelf.server).vfs
    assert images(vfs) == ["task-x_run-01_bold"] and "ReproIn's names (all scans" in readme(vfs)
    assert read(vfs, f"{SES}/func/sub-s_ses-S_task-x_run-01_bold.nii.gz") == b"3"
    assert reasons(vfs) == {
        "1": "a localizer",
        "2": "scan 3 is the last one of its name, and only that is wanted",
    }


def test_two_scans_of_one_name_are_never_one_file(study: Shelf, compose: Compose) -> None:
    """A map that numbers two scans alike is in doubt: the first keeps the name, the other has a reason."""
    both = [{"pattern": "EPI main", "suffix": "task-x_run-1_bold", "modality": "func"}]
    configure(study, "bids", "bidsmap", both)
    vfs = compose(study.server).vfs
    assert images(vfs) == ["task-x_run-01_bold"]
    assert reasons(vfs)["2"] == "it has the same name as scan 9"


def test_a_file_that_is_wrong_is_a_line_and_the_next_is_used(study: Shelf, compose: Compose) -> None:
    configure(study, "dcm2bids", "bidsconfig", '{"descriptions": [')
    configure(study, "bids", "bidsmap", BIDS_MAP)
    mounted = compose(study.server)
    assert images(mounted.vfs) == ["acq-old_T1w"]
    line = (
        "dcm2bids/bidsconfig in the configuration of project P is not used: it is not JSON (Expecting value"
    )
    assert f"  not: {line}" in readme(mounted.vfs)
    assert any(one.startswith(line) for one in mounted.diagnostics.oddities())


def test_a_server_without_the_service_costs_one_request_each(study: Shelf, compose: Compose) -> None:
    for status in (400, 403, 404):
        study.switches.update({"match": "/config", "fail_next": -1, "fail_status": status})
        study.server.clear_log()
        mounted = compose(study.server, str(status))
        assert images(mounted.vfs) == ["T1w"]
        read(mounted.vfs, f"{TOP}/unmapped.tsv")
        assert len(study.server.requests(CONFIG)) == 2  # the project's, and the site's
        assert "not:" not in readme(mounted.vfs) and not mounted.diagnostics.oddities()


def test_a_failure_hides_no_images_and_renames_none(study: Shelf, compose: Compose) -> None:
    configure(study, "bids", "bidsmap", BIDS_MAP)
    failing = {"match": "/config", "fail_next": -1, "fail_status": 503}
    study.switches.update(failing)
    new = compose(study.server, "new")
    assert images(new.vfs) == ["T1w"]
    asked = "not: the configuration of project P could not be asked for mapping files: "
    assert asked in readme(new.vfs) and new.diagnostics.oddities()
    study.switches.update({"fail_next": 0})
    new.refresh()
    assert images(new.vfs) == ["acq-old_T1w"] and "not:" not in readme(new.vfs)
    # What is known stays: through a failure, an absence that nothing confirms, and into an offline mount.
    study.switches.update(failing)
    new.refresh()
    assert images(new.vfs) == ["acq-old_T1w"]
    study.switches.update({"fail_next": 0, "database_down": True})
    new.refresh()
    assert images(new.vfs) == ["acq-old_T1w"]
    new.close()
    study.switches.update({"database_down": False})
    study.server.clear_log()
    offline = compose(study.server, "new", offline=True)
    assert images(offline.vfs) == ["acq-old_T1w"] and not study.server.requests(".")


def test_a_map_that_changes_shows_as_everything_else(study: Shelf, compose: Compose) -> None:
    mounted = compose(study.server, limits=LIMITS)
    assert images(mounted.vfs) == ["T1w"]
    configure(study, "bids", "bidsmap", BIDS_MAP)
    assert images(mounted.vfs) == ["T1w"]
    mounted.listing_service.clock.advance(2 * LIMITS.ttl)
    assert images(mounted.vfs) == ["acq-old_T1w"]
    study.server.call(study.project.configurations.clear)
    mounted.listing_service.clock.advance(2 * LIMITS.ttl)
    assert images(mounted.vfs) == ["T1w"]


def test_switched_off(study: Shelf, compose: Compose, tmp_path: Path) -> None:
    configure(study, "bids", "bidsmap", BIDS_MAP)
    own = tmp_path / "own.toml"
    for text, shown, asked in (
        ("mappings = []", ["T1w"], 0),
        ('only = true\nimages = "NIFTI"\n[[rule]]\ndescription = "T1*"\nto = "anat/T2w"', ["T2w"], 0),
        ('mappings = ["dcm2bids"]', ["T1w"], 3),
        ('[[rule]]\ndescription = "T1*"\nto = "anat/T2w"', ["T2w"], 3),  # over the lab's
    ):
        own.write_text(text)
        study.server.clear_log()
        vfs = compose(study.server, f"mount {len(text)}", bids_map=own).vfs
        assert images(vfs) == shown, text
        assert len(study.server.requests(CONFIG)) == asked


def test_what_dcm2niix_guesses_is_a_suggestion(shelf: Shelf, compose: Compose) -> None:
    for id, description in (("1", "mystery"), ("2", "mystery"), ("3", "riddle")):
        scan = shelf.make.scan(shelf.session, id, "scan", description)
        sidecar = json.dumps({"BidsGuess": ["anat", f"_acq-x_run-{id}_T2w"]}).encode()
        shelf.make.resource(scan, "NIFTI", {"i.nii.gz": b"\x1f\x8b", "i.json": sidecar})
    vfs = compose(shelf.server).vfs

    def guesses() -> list[str]:
        lines = read(vfs, f"{TOP}/unmapped.tsv").decode().splitlines()
        assert lines[0].endswith("\treason\tbids_guess")
        return [line.rpartition("\t")[2] for line in lines[1:]]

    assert guesses() == ["n/a"] * 3 and not shelf.downloads()
    text = read(vfs, f"{TOP}/code/bids.toml.suggested").decode()
    assert text.count("[[rule]]") == 2 and 'description = "riddle"\nto = "anat/T2w"' in text
    assert shelf.downloads() == 2  # one of each kind
    # What was read is at hand; no image has its name of it.
    assert guesses() == ["anat/acq-x_T2w", "n/a", "anat/acq-x_T2w"] and images(vfs) == []
