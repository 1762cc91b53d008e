"""`views/PROJECT/nifti/`: scans that have DICOM alone, converted when their folder is looked into."""

from __future__ import annotations

import errno
import gzip
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support import composed, read
from tests.vfs.conftest import LIMITS, Command, Compose, Shelf
from xnatfs import extras
from xnatfs.cache import maintenance
from xnatfs.convert import conversion, converted_scans, walk_guard
from xnatfs.core import Core
from xnatfs.demo.data.dicom_cases import datasets, in_time, stored, three_echoes, volume
from xnatfs.demo.server import DemoServer
from xnatfs.vfs import Vfs

SESSION = "/views/P/nifti/s1/S1"
T1 = f"{SESSION}/1-T1w"
INCOMPLETE = f"{SESSION}/3-bold"


@pytest.fixture(scope="module")
def _server() -> Iterator[DemoServer]:
    shelf = Shelf("s1", "S1")
    good = stored(datasets(volume()))
    series = {
        "T1w": good,
        "echoes": stored(three_echoes()),
        "bold": stored(in_time(3)[:-2]),
        "captures": {},
    }
    for number, (name, files) in enumerate(series.items(), 1):
        shelf.dicom(str(number), name, files)
    both = shelf.dicom("5", "both", good)
    shelf.make.resource(both, "NIFTI", {"a.nii": b"x"}, format="NIFTI")
    shelf.dicom("6", "copy", stored(datasets(volume("other"))), "secondary")
    shelf.make.resource(shelf.make.scan(shelf.session, "7", "text"), "NOTES", {"a.txt": b"x"})
    shelf.make.experiment(shelf.make.subject(shelf.project, "s2"), "S2", date="2024-01-09")
    with shelf.server as server:
        yield server


@pytest.fixture
def server(_server: DemoServer) -> DemoServer:
    _server.switches.zip_omit = []
    _server.clear_log()
    return _server


@pytest.fixture
def mounted(server: DemoServer, compose: Compose) -> Core:
    return compose(server)


def names(vfs: Vfs, path: str) -> list[str]:
    return [name for name, _ in vfs.entries(path)]


def contents(server: DemoServer) -> list[str]:
    """Requests for contents so far: "zip" for whole resources."""
    return [
        "zip" if "format=zip" in str(one) else "file"
        for one in server.requests(r"^GET .*/files[/?]")
        if "format=zip" in str(one) or "/files/" in str(one)
    ]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts what is converted."""
    counted: list[int] = []
    real = conversion.split

    def split(*arguments: object) -> object:
        counted.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(conversion, "split", split)
    return counted


def test_a_scan_is_converted_when_its_folder_is_looked_into(
    mounted: Core, server: DemoServer, runs: list[int]
) -> None:
    vfs = mounted.vfs
    assert names(vfs, "/views/P/nifti") == ["README", "s1", "s2"]
    assert names(vfs, "/views/P/nifti/s2/S2") == []
    assert names(vfs, SESSION) == ["1-T1w", "2-echoes", "3-bold", "4-captures", "6-copy"]
    for name in names(vfs, SESSION):
        vfs.attributes(f"{SESSION}/{name}")
        vfs.xattrs(f"{SESSION}/{name}")
    assert not runs and not contents(server), "looking at names converts nothing"
    shown = dict(vfs.entries(T1))
    base = f"s1_S1_1_{vfs.xattr(T1, 'user.xnat.id').decode()}"
    assert sorted(shown) == [f"{base}.json", f"{base}.nii.gz"]
    assert len(runs) == 1 and contents(server) == ["zip"], "one request a series"
    data = read(vfs, f"{T1}/{base}.nii.gz")
    assert len(data) == shown[f"{base}.nii.gz"].size == vfs.attributes(f"{T1}/{base}.nii.gz").size
    image = nib.as_closest_canonical(nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(data))))
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), volume())
    source = vfs.xattr(f"{T1}/{base}.nii.gz", "user.xnat.source").decode()
    assert source.endswith("/files") and "/scans/1/" in source
    assert vfs.xattr(f"{T1}/{base}.nii.gz", "user.xnat.made-by") == b"xnatfs, dcm2niix"


def test_again_it_costs_nothing_in_this_mount_and_the_next(
    server: DemoServer, runs: list[int], tmp_path: Path
) -> None:
    found = []
    for _ in range(2):
        with composed(server.url, tmp_path / "mount", limits=LIMITS) as mounted:
            for _ in range(2):
                listed = mounted.vfs.entries(T1)
                found.append([(name, one, read(mounted.vfs, f"{T1}/{name}")) for name, one in listed])
    assert len(runs) == 1 and contents(server) == ["zip"]
    assert all(one == found[0] for one in found)


def test_echoes_are_images_of_their_own(mounted: Core) -> None:
    shown = names(mounted.vfs, f"{SESSION}/2-echoes")
    images = sorted(name.partition("_echo-")[2] for name in shown if name.endswith(".nii.gz"))
    assert images == ["1.nii.gz", "2.nii.gz", "3.nii.gz"]


def test_secondary_resources_are_taken_where_there_is_no_other(mounted: Core) -> None:
    assert len(names(mounted.vfs, f"{SESSION}/6-copy")) == 2


def test_what_is_refused_is_said_kept_and_tried_again_after_a_refresh(
    mounted: Core, server: DemoServer, runs: list[int]
) -> None:
    for _ in range(2):
        assert names(mounted.vfs, INCOMPLETE) == ["problems.tsv"]
        text = read(mounted.vfs, f"{INCOMPLETE}/problems.tsv").decode()
        assert text.splitlines()[0] == "part\treason" and text.splitlines()[1].startswith(
            "all\ta volume is incomplete"
        )
    assert len(runs) == 1 and contents(server) == ["zip"]
    mounted.refresh()
    assert names(mounted.vfs, INCOMPLETE) == ["problems.tsv"]
    assert len(runs) == 2
    assert names(mounted.vfs, f"{SESSION}/4-captures") == ["problems.tsv"]


def test_many_at_once_are_one_conversion(mounted: Core, server: DemoServer, runs: list[int]) -> None:
    names(mounted.vfs, SESSION)
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(names(mounted.vfs, T1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(runs) == 1 and contents(server) == ["zip"]


def test_a_walk_that_reads_nothing_is_stopped_and_one_that_reads_is_not(
    mounted: Core, monkeypatch: pytest.MonkeyPatch, runs: list[int]
) -> None:
    monkeypatch.setattr(walk_guard, "_MOST_UNREAD", 2)
    first = names(mounted.vfs, T1)
    names(mounted.vfs, f"{SESSION}/2-echoes")
    with pytest.raises(OSError) as raised:
        names(mounted.vfs, f"{SESSION}/6-copy")
    assert raised.value.errno == errno.EBUSY and len(runs) == 2
    (odd,) = (text for text in mounted.diagnostics.oddities() if "was not converted" in text)
    assert "/scans/6/" in odd
    read(mounted.vfs, f"{T1}/{first[0]}")
    assert len(names(mounted.vfs, f"{SESSION}/6-copy")) == 2
    monkeypatch.setattr(walk_guard, "_MOST", 3)
    for name in names(mounted.vfs, f"{SESSION}/6-copy"):
        read(mounted.vfs, f"{SESSION}/6-copy/{name}")
    with pytest.raises(OSError):
        names(mounted.vfs, INCOMPLETE)


def test_a_program_that_walks_gets_an_error_until_a_scan_is_converted(
    mounted: Core, server: DemoServer, runs: list[int], command: Command
) -> None:
    """Catches: `find` that converts, or that takes a scan for an empty folder."""
    dry = command(server, "get", "-n", T1[1:], "out")
    assert dry.code == 1 and "not converted yet" in dry.err
    assert [name for name, _ in mounted.vfs.entries(SESSION, walking=True)] == names(mounted.vfs, SESSION)
    for path in (T1, INCOMPLETE):
        with pytest.raises(OSError) as raised:
            mounted.vfs.entries(path, walking=True)
        assert raised.value.errno == errno.ENODATA
    assert not runs and not contents(server) and not mounted.diagnostics.recent()
    assert len([text for text in mounted.diagnostics.oddities() if "scans of P in nifti/" in text]) == 1
    for path in (T1, INCOMPLETE):
        assert names(mounted.vfs, path) == [name for name, _ in mounted.vfs.entries(path, walking=True)] != []
    assert len(runs) == 2


def test_what_a_zip_lacks_is_fetched_by_itself(mounted: Core, server: DemoServer) -> None:
    server.switches.zip_omit = ["0003.dcm"]
    assert len(names(mounted.vfs, T1)) == 2
    assert sorted(contents(server)) == ["file", "zip"]


def test_what_is_in_the_cache_is_not_fetched_again(mounted: Core, server: DemoServer) -> None:
    home = "/projects/P/subjects/s1/S1/SCANS/1-T1w/DICOM"
    for name in names(mounted.vfs, home):
        read(mounted.vfs, f"{home}/{name}")
    before = len(server.requests())
    assert len(names(mounted.vfs, T1)) == 2
    assert len(server.requests()) == before


def test_a_disk_with_too_little_room_is_an_error_that_passes(
    mounted: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
        with pytest.raises(OSError) as raised:
            names(mounted.vfs, T1)
        assert raised.value.errno == errno.ENOSPC
    kept = mounted.cache.directory / "converted"
    assert list(kept.iterdir()) == [], "nothing is left behind"
    assert len(names(mounted.vfs, T1)) == 2


def test_what_was_removed_for_room_is_made_again(
    server: DemoServer, compose: Compose, runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = compose(server)
    monkeypatch.setattr(mounted.conversions._store, "_most_bytes", 3000)
    (image,) = (name for name in names(mounted.vfs, T1) if name.endswith(".nii.gz"))
    data = read(mounted.vfs, f"{T1}/{image}")
    names(mounted.vfs, f"{SESSION}/2-echoes")
    assert len(list((mounted.cache.directory / "converted").glob("*/*.nii.gz"))) == 3, "those of echoes"
    assert names(mounted.vfs, T1)[-1] == image and len(runs) == 2, "names stay known"
    assert read(mounted.vfs, f"{T1}/{image}") == data
    assert len(runs) == 3


def test_a_cache_that_is_cleared_under_a_mount_is_filled_again(mounted: Core, runs: list[int]) -> None:
    names(mounted.vfs, T1)
    maintenance.clear(maintenance.CacheScope(mounted.cache.directory))
    assert not list((mounted.cache.directory / "converted").glob("*"))
    (image,) = (name for name in names(mounted.vfs, T1) if name.endswith(".nii.gz"))
    assert read(mounted.vfs, f"{T1}/{image}")[:2] == b"\x1f\x8b"
    assert len(runs) == 2


def test_what_a_killed_mount_left_is_removed(
    server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with composed(server.url, tmp_path / "mount", limits=LIMITS) as mounted:
        folder = mounted.cache.directory / "converted"
        (folder / ".work-left").mkdir()
        (folder / ".work-left/image.nii").write_bytes(b"half")
        assert len(names(mounted.vfs, T1)) == 2
        monkeypatch.setattr("xnatfs.convert.converted_store._LEFT_BEHIND_AFTER_S", -1.0)
        with (
            mounted.conversions._store.workplace() as filled,
            composed(server.url, tmp_path / "mount", limits=LIMITS) as other,
        ):
            assert list(folder.glob(".*")) == [filled], "what another mount is filling stays"
            assert len(names(other.vfs, T1)) == 2


def test_without_the_extra_a_text_says_how_to_install_it(
    mounted: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    assert names(mounted.vfs, "/views/P/nifti") == ["README"]
    text = read(mounted.vfs, "/views/P/nifti/README").decode()
    assert "pip install 'xnatfs[convert]'" in text
    monkeypatch.undo()
    assert "s1" in names(mounted.vfs, "/views/P/nifti")
    assert "looked\ninto" in read(mounted.vfs, "/views/P/nifti/README").decode()


def test_another_converter_gives_another_key(
    mounted: Core, runs: list[int], server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old bytes are never shown under a new name."""
    image = next(name for name in names(mounted.vfs, T1) if name.endswith(".nii.gz"))
    first = mounted.vfs.xattr(f"{T1}/{image}", "user.xnat.key")
    mounted.close()
    real = converted_scans.find_converter()
    newer = type(real)(real.program, "newer", real.digest)
    monkeypatch.setattr(converted_scans, "find_converter", lambda: newer)
    with composed(server.url, tmp_path / "mount", limits=LIMITS) as again:
        assert again.vfs.xattr(f"{T1}/{image}", "user.xnat.key") != first
    assert len(runs) == 2
