"""`views/PROJECT/bids/` of scans that have DICOM alone: named from listings, converted when they are read."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support import composed, read, walk
from tests.vfs.conftest import LIMITS, Command, Compose, Shelf
from tests.vfs.test_nifti_view import contents
from xnatfs import extras
from xnatfs.convert import conversion, walk_guard
from xnatfs.core import Core
from xnatfs.demo.data import raw
from xnatfs.demo.data.dicom_cases import datasets, in_time, of_type, stored, three_echoes, volume
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure
from xnatfs.tree import bids_guesses
from xnatfs.tree.node import UnknownSize
from xnatfs.vfs import Vfs

BIDS = "/views/P/bids"
SESSION = f"{BIDS}/sub-s1/ses-MR"
STEM = "sub-s1_ses-MR"
T1 = f"{SESSION}/anat/{STEM}_run-01_T1w"


@pytest.fixture(scope="module")
def _server() -> Iterator[DemoServer]:
    shelf = Shelf("s1", "s1_MR")
    good = stored(datasets(volume()))
    series = {
        "T1w": good,
        "T1w again": stored(in_time(3)[:-2]),  # refused
        "T1w third": stored(datasets(volume("third"))),
        "T2w": stored(three_echoes()),
        "rest bold": stored(in_time(4)),
        "dwi": stored(in_time(2)),  # without b-values
        "t2 flair": good,  # fewer files than the server counts
        "localizer": good,
    }
    for number, (name, files) in enumerate(series.items(), 1):
        shelf.dicom(str(number), name, files)
    both = shelf.dicom("20", "PD", stored(datasets(volume("pd"))))
    shelf.make.resource(both, "NIFTI", {"a.nii.gz": b"the server's"}, format="NIFTI")
    with shelf.server as server:
        yield server


@pytest.fixture
def server(_server: DemoServer) -> DemoServer:
    _server.clear_log()
    return _server


@pytest.fixture
def mounted(server: DemoServer, compose: Compose) -> Core:
    return compose(server)


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts what is converted."""
    counted: list[int] = []
    real = conversion.split

    def split(*arguments: object) -> object:
        counted.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(conversion, "split", split)
    return counted


def names(vfs: Vfs, path: str) -> list[str]:
    return sorted(name for name, _ in vfs.entries(path))


def failure(vfs: Vfs, path: str) -> Failure:
    with pytest.raises(Failure) as raised:
        read(vfs, path)
    return raised.value


def unmapped(vfs: Vfs) -> dict[str, str]:
    lines = read(vfs, f"{BIDS}/unmapped.tsv").decode().splitlines()
    head = lines[0].split("\t")
    rows = [dict(zip(head, line.split("\t"), strict=True)) for line in lines[1:]]
    return {row["series_description"]: row["reason"] for row in rows}


def test_names_come_from_listings_and_nothing_is_converted(
    mounted: Core, server: DemoServer, runs: list[int]
) -> None:
    """Catches: a walk, `stat` or `du` that converts a study."""
    vfs = mounted.vfs
    assert names(vfs, f"{SESSION}/anat") == sorted(
        f"{STEM}_{name}{ending}"
        for name in ("run-01_T1w", "run-02_T1w", "run-03_T1w", "T2w", "FLAIR", "PDw")
        for ending in (".nii.gz", ".json")
        if (name, ending) != ("PDw", ".json")
    )
    assert names(vfs, f"{SESSION}/dwi") == [
        f"{STEM}_dwi{end}" for end in (".bval", ".bvec", ".json", ".nii.gz")
    ]
    assert names(vfs, f"{SESSION}/func") == [f"{STEM}_task-rest_bold{end}" for end in (".json", ".nii.gz")]
    shown = dict(walk(vfs, SESSION))
    image = vfs.attributes(f"{T1}.nii.gz")
    assert isinstance(image.size, UnknownSize) and image.blocks == 0
    assert 0 < vfs.attributes(f"{T1}.json").size <= 2**20, "a validator reserves that much"
    assert vfs.xattr(f"{T1}.nii.gz", "user.xnat.made-by") == b"xnatfs, dcm2niix"
    assert len(shown) > 10 and unmapped(vfs).keys() == {"localizer"}
    assert not runs and not contents(server)


def test_it_says_that_it_is_made_and_of_what(mounted: Core, server: DemoServer) -> None:
    vfs = mounted.vfs
    said = json.loads(read(vfs, f"{BIDS}/dataset_description.json"))
    assert [one["Name"] for one in said["GeneratedBy"]] == ["xnatfs", "dcm2niix"]
    assert said["GeneratedBy"][1]["Version"] in read(vfs, f"{BIDS}/README").decode()
    assert said["SourceDatasets"] == [{"URL": f"{server.url}/data/projects/P"}]
    bold = f"{SESSION}/func/{STEM}_task-rest_bold"
    read(vfs, f"{bold}.json")
    for path in (f"{T1}.nii.gz", f"{bold}.nii.gz", f"{bold}.json"):
        source = vfs.xattr(path, "user.xnat.source").decode()
        assert source.startswith("/data/experiments/") and vfs.xattr(path, "user.xnat.key")
        assert vfs.xattr(path, "user.xnat.made-by") == b"xnatfs, dcm2niix"
    with pytest.raises(OSError):
        vfs.xattr(f"{SESSION}/anat/{STEM}_PDw.nii.gz", "user.xnat.made-by")


def test_a_file_is_true_from_open_on_and_in_the_next_mount(
    mounted: Core, server: DemoServer, runs: list[int], compose: Compose
) -> None:
    vfs = mounted.vfs
    data = read(vfs, f"{T1}.nii.gz")
    image = nib.as_closest_canonical(nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(data))))
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), volume())
    assert vfs.attributes(f"{T1}.nii.gz").size == len(data)
    sidecar = read(vfs, f"{T1}.json")
    assert json.loads(sidecar)["GeneratedBy"][1]["Name"] == "dcm2niix"
    assert vfs.attributes(f"{T1}.json").size == len(sidecar)
    assert len(runs) == 1 and contents(server) == ["zip"], "one zip, one conversion"
    bold = json.loads(read(vfs, f"{SESSION}/func/{STEM}_task-rest_bold.json"))
    assert bold["TaskName"] == "rest" and bold["RepetitionTime"] == pytest.approx(2.3)
    shot = read(vfs, f"{SESSION}/func/{STEM}_task-rest_bold.nii.gz")
    assert nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(shot))).shape == (12, 10, 8, 4)
    rows = read(vfs, f"{SESSION}/{STEM}_scans.tsv").decode()
    assert f"anat/{STEM}_run-01_T1w.nii.gz\t" in rows and "\tDICOM\tn/a\n" in rows
    mounted.close()
    again = compose(server).vfs
    assert again.attributes(f"{T1}.nii.gz").size == len(data) and read(again, f"{T1}.nii.gz") == data
    assert len(runs) == 2


def test_what_is_refused_is_an_error_and_a_line_and_renames_nothing(
    mounted: Core, runs: list[int], server: DemoServer, compose: Compose
) -> None:
    """Catches: half an image under a name, and a neighbour that gets another run because of it."""
    vfs = mounted.vfs
    before = names(vfs, f"{SESSION}/anat")
    problem = failure(vfs, f"{SESSION}/anat/{STEM}_run-02_T1w.json")
    assert problem.cause is Cause.REFUSED and problem.errno == errno.EIO
    assert "a volume is incomplete" in str(problem) and "/scans/2/" in str(problem)
    after = names(vfs, f"{SESSION}/anat")
    assert set(before) - set(after) == {f"{STEM}_run-02_T1w{end}" for end in (".json", ".nii.gz")}
    assert set(after) < set(before)
    assert unmapped(vfs)["T1w again"].startswith("not converted: a volume is incomplete")
    assert "a volume is incomplete" in mounted.diagnostics.recent()[-1].text
    assert len(runs) == 1
    mounted.close()
    again = compose(server).vfs
    assert names(again, f"{SESSION}/anat") == after and len(runs) == 1, "kept for the next mount"


def test_what_is_several_images_is_listed_as_these(mounted: Core, runs: list[int]) -> None:
    vfs = mounted.vfs
    problem = failure(vfs, f"{SESSION}/anat/{STEM}_T2w.nii.gz")
    assert problem.cause is Cause.OTHER_IMAGES and "_echo-1, _echo-2, _echo-3" in str(problem)
    found = [name for name in names(vfs, f"{SESSION}/anat") if "T2w" in name]
    assert found == [f"{STEM}_echo-{echo}_T2w{end}" for echo in (1, 2, 3) for end in (".json", ".nii.gz")]
    for name in found:
        read(vfs, f"{SESSION}/anat/{name}")
    assert len(runs) == 1
    with pytest.raises(OSError) as raised:
        vfs.attributes(f"{SESSION}/anat/{STEM}_T2w.nii.gz")
    assert raised.value.errno == errno.ENOENT


def test_what_lacks_what_bids_demands_is_not_served(mounted: Core) -> None:
    """Catches: a diffusion image without b-values, which is listed with them."""
    vfs = mounted.vfs
    assert failure(vfs, f"{SESSION}/dwi/{STEM}_dwi.nii.gz").cause is Cause.OTHER_IMAGES
    assert "dwi" not in names(vfs, SESSION)
    assert unmapped(vfs)["dwi"] == "dwi/dwi needs a file bval beside the image"


def test_a_guess_is_of_what_is_converted_already(
    mounted: Core, runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: a column of unmapped.tsv that converts the scans it is about."""
    monkeypatch.setattr(bids_guesses, "read_guess", lambda sidecar: f"dwi/{json.loads(sidecar)['Modality']}")

    def guesses() -> list[str]:
        lines = read(mounted.vfs, f"{BIDS}/unmapped.tsv").decode().splitlines()
        return [line.rpartition("\t")[2] for line in lines[1:]]

    assert guesses() == ["n/a"] and not runs  # the localizer
    with pytest.raises(OSError):
        read(mounted.vfs, f"{SESSION}/dwi/{STEM}_dwi.nii.gz")
    assert sorted(guesses()) == ["dwi/MR", "n/a"] and len(runs) == 1
    assert b'"localizer"' not in read(mounted.vfs, f"{BIDS}/code/bids.toml.suggested") and len(runs) == 1


def test_the_phase_of_a_field_map_is_no_magnitude(shelf: Shelf, compose: Compose) -> None:
    """Catches: two series of one description that both pass for magnitudes once they are converted."""
    phase = of_type(datasets(volume("phase")), "ORIGINAL", "PRIMARY", "P", "ND")
    for id, files in (("1", stored(datasets(volume()))), ("2", stored(phase))):
        shelf.dicom(id, "gre_field_mapping", files)
    vfs = compose(shelf.server).vfs
    folder = f"{BIDS}/sub-s/ses-S/fmap"
    for name in names(vfs, folder):
        with contextlib.suppress(OSError):
            read(vfs, f"{folder}/{name}")
    assert names(vfs, folder) == [f"sub-s_ses-S_magnitude1{end}" for end in (".json", ".nii.gz")]
    assert unmapped(vfs)["gre_field_mapping"].startswith("fmap/phasediff requires EchoTime1")


def test_a_count_that_disagrees_with_the_servers_is_refused(server: DemoServer, compose: Compose) -> None:
    """Catches: a series whose end is missing in the catalog, which looks whole."""
    (session,) = server.archive.experiments.values()
    resource = session.scans[6].resources[0]
    resource.counted = (len(resource.entries) + 1, 0)
    try:
        vfs = compose(server).vfs
        reason = "there are 8 files, and the server counts 9"
        assert reason in str(failure(vfs, f"{SESSION}/anat/{STEM}_FLAIR.nii.gz"))
        (folder,) = (name for name in names(vfs, "/views/P/nifti/s1/s1_MR") if name.startswith("7-"))
        assert reason in read(vfs, f"/views/P/nifti/s1/s1_MR/{folder}/problems.tsv").decode()
    finally:
        resource.counted = None


def test_prefer_dicom_takes_it_where_there_are_both(server: DemoServer, compose: Compose) -> None:
    path = f"{SESSION}/anat/{STEM}_PDw.nii.gz"
    assert read(compose(server).vfs, path) == b"the server's"
    other = compose(server, "other", prefer="dicom").vfs
    assert read(other, path)[:2] == b"\x1f\x8b" and "20-PD" in names(other, "/views/P/nifti/s1/s1_MR")
    one = compose(server, "one", prefer="dicom", project_prefer=(("P", "server"),)).vfs
    assert read(one, path) == b"the server's" and "20-PD" not in names(one, "/views/P/nifti/s1/s1_MR")


def test_a_walk_that_reads_is_stopped_after_a_while(
    mounted: Core, monkeypatch: pytest.MonkeyPatch, runs: list[int]
) -> None:
    monkeypatch.setattr(walk_guard, "_MOST", 1)
    read(mounted.vfs, f"{T1}.json")
    assert failure(mounted.vfs, f"{SESSION}/anat/{STEM}_T2w.json").errno == errno.EBUSY
    assert mounted.convert(f"{SESSION}/anat/{STEM}_T2w.nii.gz"[1:]) == {"images": 3, "problems": []}
    said = mounted.convert(f"{SESSION}/anat/{STEM}_run-02_T1w.nii.gz"[1:])
    assert said["images"] == 0 and said["problems"][0].startswith("all: a volume is incomplete")
    assert len(runs) == 3
    mounted.conversions.ask_for_all()
    assert read(mounted.vfs, f"{SESSION}/anat/{STEM}_run-03_T1w.json") and len(runs) == 4


def test_get_copies_at_once_what_the_scans_turn_out_to_be(
    server: DemoServer, command: Command, tmp_path: Path, runs: list[int]
) -> None:
    """Catches: a copy that names what is not there, or lists from before the scans were converted."""
    done = command(server, "get", BIDS[1:], "out")
    assert done.code == 3 and "_T2w.nii.gz: " not in done.err, "three echoes are no failure"
    assert "run-02_T1w.nii.gz: all: a volume is incomplete" in done.err
    copied = {path.relative_to(tmp_path / "out/bids").as_posix() for path in tmp_path.glob("out/**/*.*")}
    anat = {name.removeprefix(f"sub-s1/ses-MR/anat/{STEM}_") for name in copied if "/anat/" in name}
    echoes = {f"echo-{echo}_T2w" for echo in (1, 2, 3)}
    images = {"run-01_T1w", "run-03_T1w", "FLAIR", *echoes}
    assert anat == {f"{one}{end}" for one in images for end in (".json", ".nii.gz")} | {"PDw.nii.gz"}
    assert "a volume is incomplete" in (tmp_path / "out/bids/unmapped.tsv").read_text()
    rows = (tmp_path / f"out/bids/sub-s1/ses-MR/{STEM}_scans.tsv").read_text()
    assert "echo-2_T2w" in rows and "run-02_T1w" not in rows
    before = len(runs)
    assert command(server, "get", BIDS[1:], "out").code == 0 and len(runs) == before


def test_without_the_extra_a_line_says_how_to_install_it(
    mounted: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    assert [name for name in names(mounted.vfs, SESSION) if "." not in name] == ["anat"]
    assert names(mounted.vfs, f"{SESSION}/anat") == [f"{STEM}_PDw.nii.gz"]
    assert "pip install 'xnatfs[convert]'" in unmapped(mounted.vfs)["T1w"]


def test_what_is_stripped_can_be_chosen(server: DemoServer, compose: Compose) -> None:
    """Catches: a list that takes the place of the usual one where one more key was asked for."""
    found = [
        (json.loads(read(vfs, f"{T1}.json")), vfs.xattr(f"{T1}.nii.gz", "user.xnat.key"))
        for vfs in (
            compose(server, str(number), strip=strip).vfs
            for number, strip in enumerate([(), ("EchoTime",), ("EchoTime", "none")])
        )
    ]
    assert ["EchoTime" in sidecar for sidecar, _ in found] == [True, False, False]
    assert ["StationName" in sidecar for sidecar, _ in found] == [False, False, True]
    assert len({key for _, key in found}) == 3


def test_a_field_map_is_right_whichever_of_its_images_is_opened_first(tmp_path: Path) -> None:
    """Catches: a phase difference that is refused while nobody has looked at its magnitudes."""
    archive = Archive(site="T")
    make = Maker(archive, datetime(2024, 1, 8, 9, 15))
    make.user("demo")
    raw.add(make)
    with DemoServer(archive) as server, composed(server.url, tmp_path, limits=LIMITS) as core:
        folder = f"{BIDS}/sub-R01/ses-MR1/fmap".replace("/P/", "/RAW/")
        phase = f"{folder}/sub-R01_ses-MR1_phasediff"
        assert read(core.vfs, f"{phase}.nii.gz")[:2] == b"\x1f\x8b"
        said = json.loads(read(core.vfs, f"{phase}.json"))
        assert (said["EchoTime1"], said["EchoTime2"]) == (0.0035, 0.007)
        assert len([name for name in names(core.vfs, folder) if name.endswith(".nii.gz")]) == 3
