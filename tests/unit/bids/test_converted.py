"""A session's images that are made of DICOM files: what they are called before and after they are known."""

from __future__ import annotations

import json

import pytest

from tests.unit.bids.test_dataset import one, plan, reasons
from xnatfs.bids.bids_image import KnownImage, ScanFiles
from xnatfs.bids.dataset import Context, Sidecar, Text, arrange
from xnatfs.bids.default_rules import usual_map
from xnatfs.bids.image_files import converted_picture
from xnatfs.bids.lab_maps import LabFile, lab_map
from xnatfs.bids.mapping import MapSource
from xnatfs.server.records import FileRecord, Owner

ENDINGS = (".nii.gz", ".json", ".bval", ".bvec")
ASL = '[[rule]]\ntype = "ASL"\nto = "perf/asl"\naslcontext = ["control", "label"]\n'


def file(scan: str, path: str) -> FileRecord:
    return FileRecord(Owner("scan", "E1", scan), 7, "DICOM", path, 0, "")


def unknown(id: str, type: str, frames: str = "10") -> ScanFiles:
    scan = one(id, type, [], frames=frames).scan
    files = [file(id, f"image{end}") for end in ENDINGS]
    return ScanFiles(scan, "DICOM", files, assumed=files[0])


def known(
    id: str, type: str, *labels: str, volumes: int = 1, fields: str = "EchoTime", refused: str = ""
) -> ScanFiles:
    endings = ENDINGS[:2]
    return unknown(id, type)._replace(
        files=[file(id, f"image{label}{end}") for label in labels for end in endings],
        images={f"image{label}.nii.gz": KnownImage(volumes, fields.split()) for label in labels},
        refused=[refused] if refused else [],
    )


def images(*scans: ScanFiles, rules: str = "") -> list[str]:
    found = plan(*scans, rules=rules)
    return sorted(path.removesuffix(".nii.gz") for path in found.files if path.endswith(".nii.gz"))


def named(*names: str) -> list[str]:
    return [f"anat/sub-01_ses-A_{name}" for name in names]


def test_looking_into_one_scan_renames_no_other() -> None:
    """Catches: runs that are counted anew once a scan is known to be refused, or to be echoes."""
    before = images(unknown("1", "T1"), unknown("2", "T1"), unknown("3", "T1"))
    assert before == named("run-01_T1w", "run-02_T1w", "run-03_T1w")
    assert images(known("1", "T1", ""), unknown("2", "T1"), unknown("3", "T1")) == before
    assert images(unknown("1", "T1"), known("2", "T1", refused="no"), unknown("3", "T1")) == named(
        "run-01_T1w", "run-03_T1w"
    )
    assert images(unknown("1", "T1"), known("2", "T1", "_echo-1", "_echo-2"), known("3", "T1", "")) == named(
        "run-01_T1w", "run-02_echo-1_T1w", "run-02_echo-2_T1w", "run-03_T1w"
    )
    # The images of the server are counted as ever.
    assert images(one("1", "T1", ["a.nii.gz", "b.nii.gz"]), unknown("2", "T1")) == named(
        "run-01_T1w", "run-02_T1w", "run-03_T1w"
    )


def test_what_tells_images_of_a_scan_apart_becomes_entities() -> None:
    assert images(known("1", "T1", "_part-mag", "_part-phase")) == named("part-mag_T1w", "part-phase_T1w")
    assert images(known("1", "T1", "_rec-nd", "_rec-norm")) == named("rec-nd_T1w", "rec-norm_T1w")
    assert images(known("1", "T2", "_plane-axial", "_plane-coronal")) == named(
        "acq-axial_T2w", "acq-coronal_T2w"
    )
    assert images(known("1", "T2*", "_echo-1", "_echo-2")) == named("echo-1_MEGRE", "echo-2_MEGRE")
    sidecar = plan(known("1", "T1", "_part-mag", "_part-phase")).files[
        "anat/sub-01_ses-A_part-phase_T1w.json"
    ]
    assert isinstance(sidecar, Sidecar) and sidecar.fields == {"Units": "arbitrary"}


def test_what_nothing_tells_apart_and_what_was_computed_is_left_out() -> None:
    found = plan(known("1", "T1", "_image-1", "_image-2"), known("2", "DWI", "_rec-derivedadc"))
    assert not found.files
    assert reasons(found)["1"] == "nothing says which of the scan's images this is"
    assert reasons(found)["2"] == "made from another image (derivedadc)"


def test_what_a_sidecar_decides_is_decided_once_there_is_one() -> None:
    """Catches: a name that is guessed before the scan is converted, or a reason that says not what to do."""
    one = {"datatype": "anat", "suffix": "T1w", "criteria": {"SeriesDescription": "GRE", "EchoTime": 0.5}}
    found = lab_map([LabFile(MapSource("the lab's", json.dumps({"descriptions": [one]})))], None).map
    assert found is not None
    rules = found.over(usual_map())
    before = arrange("01", "A", [unknown("1", "GRE")], rules)
    reason = "the dcm2bids configuration decides by EchoTime, which is not known of it"
    assert not before.files and reasons(before) == {"1": f"{reason}; it is once the scan is converted"}
    fields = {"image.json": {"SeriesDescription": "GRE", "EchoTime": 0.5}}
    after = arrange("01", "A", [known("1", "GRE", "")._replace(fields=fields)], rules)
    assert "anat/sub-01_ses-A_T1w.nii.gz" in after.files


def test_a_field_map_is_known_by_its_files() -> None:
    before = images(unknown("1", "field map"), unknown("2", "field map"))
    assert before == ["fmap/sub-01_ses-A_run-01_magnitude1", "fmap/sub-01_ses-A_run-02_magnitude1"]
    after = plan(
        known("1", "field map", "_echo-1", "_echo-2"),
        known("2", "field map phase", "", fields="EchoTime EchoTime1 EchoTime2"),
    )
    assert sorted(path for path in after.files if path.endswith(".nii.gz")) == [
        f"fmap/sub-01_ses-A_{suffix}.nii.gz" for suffix in ("magnitude1", "magnitude2", "phasediff")
    ]


def test_a_phase_image_is_no_magnitude_whatever_it_is_called() -> None:
    """Siemens calls both series of a field map the same, and a lone part has no `part-` in its name."""
    magnitudes = known("1", "field map", "_echo-1", "_echo-2")
    phase = known("2", "field map", "", fields="EchoTime1 EchoTime2")
    phase = phase._replace(fields={"image.json": {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND", "PHASE"]}})
    assert images(magnitudes, phase) == [
        f"fmap/sub-01_ses-A_{suffix}" for suffix in ("magnitude1", "magnitude2", "phasediff")
    ]


def test_what_the_files_do_not_say_is_a_reason_and_no_guess() -> None:
    """Catches: a field map without its direction, and a time series of one volume."""
    fields = "PhaseEncodingDirection TotalReadoutTime"
    assert images(known("1", "topup", "", fields=fields)) == ["fmap/sub-01_ses-A_epi"]
    lacking = plan(known("1", "topup", "", fields="TotalReadoutTime"), known("2", "rest", "", volumes=1))
    assert not lacking.files
    assert reasons(lacking) == {
        "1": "fmap/epi requires PhaseEncodingDirection in its sidecar, and the DICOM files do not say it",
        "2": "bold has a time axis, this has 1 volume",
    }
    assert images(unknown("1", "topup"), unknown("2", "rest")) == [
        "fmap/sub-01_ses-A_epi",
        "func/sub-01_ses-A_task-rest_bold",
    ]


def test_the_context_of_a_perfusion_image_is_that_of_its_volumes() -> None:
    """The server counts slices."""
    labeling = (
        "ArterialSpinLabelingType PostLabelingDelay BackgroundSuppression M0Type TotalAcquiredPairs"
        " RepetitionTimePreparation MagneticFieldStrength MRAcquisitionType EchoTime"
    )
    name = "perf/sub-01_ses-A_aslcontext.tsv"
    assert plan(unknown("1", "ASL"), rules=ASL).files[name] == Context(
        file("1", "image.nii.gz"), ("control", "label")
    )
    found = plan(known("1", "ASL", "", volumes=4, fields=labeling), rules=ASL).files[name]
    assert (
        isinstance(found, Text) and found.data.split() == b"volume_type control label control label".split()
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("image.nii.gz", (0, "", "", {}, False)),
        ("image_series-3_echo-2_part-none.nii.gz", (2, "", "", {}, True)),
        ("image_rec-derivedadc.nii.gz", (0, "", "derivedadc", {"rec": "derivedadc"}, False)),
    ],
)
def test_what_a_name_says(name: str, said: tuple[object, ...]) -> None:
    found = converted_picture(file("1", name))
    assert found is not None
    assert (found.echo, found.part, found.derivation, found.entities, found.unclear) == said
    assert converted_picture(file("1", "image.json")) is None
