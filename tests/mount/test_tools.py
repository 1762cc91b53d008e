"""The tools people use, on the mount as on a disk. What they must read is the ground truth, written to a
folder beside it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
from collections import Counter
from datetime import datetime
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.mount.conftest import Lab
from tests.support import mount, run, xnatfs
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive, BytesContent, PathContent
from xnatfs.demo.server import DemoServer

MIB = 1 << 20
SUBJECT = "projects/ALFA/subjects/sub001"
T1 = f"{SUBJECT}/sub001_MR1/SCANS/2-T1_ALFA1"


def ok(*command: str | Path, timeout: float = 100) -> str:
    """What a tool prints; it has to be there and to succeed."""
    assert shutil.which(str(command[0])), f"{command[0]} is not installed (scripts/test installs it)"
    done = run(*command, timeout=timeout)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def python(code: str, *arguments: Path) -> str:
    """Run Python in a process of its own: one that waits for a page of a mapped file holds the lock the demo
    server needs.
    """
    return ok(sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


@pytest.fixture
def truth(full: Lab, disk: Path) -> Path:
    """The true files of a subject, as plain files in the same folders as on the mount."""
    root = disk / "sub001"
    if not root.exists():
        for path, file in full.people("ALFA").items():
            if file.subject == "sub001":
                copy = root / path.relative_to(full.demo.point / SUBJECT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read())
    return root


def same(left: Path, right: Path) -> None:
    """Whether two folders have the same files with the same bytes, by the real `diff`."""
    assert ok("diff", "-r", left, right) == ""


def true_t1(truth: Path) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(
        gzip.decompress(next(truth.glob("sub001_MR1/SCANS/2-*/NIFTI/*.nii.gz")).read_bytes())
    )


# --- copying ------------------------------------------------------------------------------------------------


def test_cp_copies_a_subject(full: Lab, truth: Path, tmp_path: Path) -> None:
    ok("cp", "-r", full.demo.point / SUBJECT, tmp_path)
    same(tmp_path / "sub001", truth)
    copies = list(tmp_path.rglob("*"))
    assert copies and all(path.stat().st_mode & 0o200 for path in copies), "they can be changed and removed"


def test_cp_keeps_sparse_detection_honest(full: Lab, truth: Path, tmp_path: Path) -> None:
    """`cp` and `tar -S` look at the blocks of a file; 0 of them would read as a hole."""
    ok("cp", "-r", "--sparse=always", full.demo.point / SUBJECT, tmp_path)
    same(tmp_path / "sub001", truth)


def test_tar_packs_a_subject(full: Lab, truth: Path, tmp_path: Path) -> None:
    for options in ("-cf", "-cSf"):
        ok("tar", options, tmp_path / "s.tar", "-C", (full.demo.point / SUBJECT).parent, "sub001")
        unpacked = tmp_path / options
        with tarfile.open(tmp_path / "s.tar") as packed:
            packed.extractall(unpacked, filter="data")
        same(unpacked / "sub001", truth)


def rsync(source: Path, target: Path) -> tuple[list[str], int]:
    """The files `rsync -a` transfers, and how many regular files it looked at."""
    text = ok("rsync", "-a", "--stats", "--out-format=%i %n", f"{source}/", target)
    moved = [line.split(" ", 1)[1] for line in text.splitlines() if re.match(r"[<>ch.][fdLDS]\S{9} ", line)]
    counted = re.search(r"^Number of regular files transferred: ([\d,]+)$", text, re.M)
    seen = re.search(r"^Number of files: [\d,]+ \(reg: ([\d,]+)", text, re.M)
    assert counted and seen
    assert int(counted[1].replace(",", "")) == len([name for name in moved if not name.endswith("/")])
    return moved, int(seen[1].replace(",", ""))


def test_rsync_transfers_everything_once_and_nothing_later(full: Lab, tmp_path: Path) -> None:
    """Not the second time, not after a remount, not after the cache was thrown away: sizes and times are the
    same.
    """
    copy, mine = tmp_path / "copy", tmp_path / "mine"
    files = [file for file in full.files("DWI") if not file.gone]
    with mount(full.server.url, mine) as mounted:
        moved, seen = rsync(mounted.point / "projects/DWI", copy)
        assert len([name for name in moved if not name.endswith("/")]) == seen == len(files)
        assert rsync(mounted.point / "projects/DWI", copy) == ([], seen)
    with mount(full.server.url, mine) as mounted:
        assert rsync(mounted.point / "projects/DWI", copy) == ([], seen)
    shutil.rmtree(mine / "cache")
    with mount(full.server.url, mine) as mounted:
        assert rsync(mounted.point / "projects/DWI", copy) == ([], seen)
        found = {
            path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()
        }
    assert found == {path: file.read() for path, file in full.spelling("DWI").people().items()}


def test_rsync_of_files_whose_listed_size_is_wrong_is_stable_too(full: Lab, tmp_path: Path) -> None:
    """What was learnt of a file's true size outlives the mount and the cache."""
    copy, mine = tmp_path / "copy", tmp_path / "mine"
    folder = "projects/MESSY/subjects/m03/m03_catalogs/RESOURCES/SIZES"
    for attempt in range(3):
        with mount(full.server.url, mine) as mounted:
            moved, seen = rsync(mounted.point / folder, copy)
            assert seen == 3 and (len(moved) == 4 if attempt == 0 else moved == []), moved
        shutil.rmtree(mine / "cache")
    for file in full.files("MESSY", resource="SIZES"):
        assert (copy / file.path).read_bytes() == file.read()


# --- looking ------------------------------------------------------------------------------------------------


def test_ls_lists_sizes_and_times(full: Lab, truth: Path) -> None:
    text = ok("ls", "-lR", "--time-style=+%s", full.demo.point / SUBJECT)
    listed = Counter(
        (int(line.split()[4]), line.split(None, 6)[6]) for line in text.splitlines() if line.startswith("-")
    )
    assert listed == Counter((path.stat().st_size, path.name) for path in truth.rglob("*") if path.is_file())
    assert {line.split()[0] for line in text.splitlines() if line.startswith(("-", "d"))} == {
        "-rw-r--r--",
        "drwxr-xr-x",
    }


def test_find_finds_by_size_and_name(full: Lab, truth: Path) -> None:
    found = ok(
        "find", full.demo.point / SUBJECT, "-name", "*.nii.gz", "-size", "+100k", "-printf", "%f\n"
    ).split()
    expected = [path.name for path in truth.rglob("*.nii.gz") if -(-path.stat().st_size // 1024) > 100]
    assert sorted(found) == sorted(expected) != []


def test_du_counts_what_is_there(full: Lab, truth: Path) -> None:
    total = sum(path.stat().st_size for path in truth.rglob("*") if path.is_file())
    folders = [truth, *(path for path in truth.rglob("*") if path.is_dir())]
    apparent = int(ok("du", "-s", "--apparent-size", "-B1", full.demo.point / SUBJECT).split()[0])
    assert apparent - total in range(0, 4096 * len(folders) + 1)
    on_disk = int(ok("du", "-s", "-B1", full.demo.point / SUBJECT).split()[0])
    blocks = sum(-(-path.stat().st_size // 512) * 512 for path in truth.rglob("*") if path.is_file())
    assert on_disk - blocks in range(0, 4096 * len(folders) + 1)


def test_diff_and_md5sum_and_grep_read_true_bytes(full: Lab, truth: Path) -> None:
    mounted = full.demo.point / SUBJECT
    same(mounted, truth)
    same(
        mounted / "sub001_MR1/SCANS/4-DWI",
        full.demo.point / "archive/projects/ALFA/experiments/sub001_MR1/SCANS/4",
    )
    names = sorted(path.relative_to(truth).as_posix() for path in truth.rglob("*") if path.is_file())
    sums = run("md5sum", *names, cwd=mounted).stdout.splitlines()
    digests = {
        path.relative_to(mounted).as_posix(): file.digest
        for path, file in full.people("ALFA").items()
        if file.subject == "sub001"
    }
    assert {line[34:]: line[:32] for line in sums} == digests
    hits = [
        sorted(run("grep", "-rc", "EstimatedTotalIntraCranialVol", ".", cwd=root).stdout.splitlines())
        for root in (mounted, truth)
    ]
    assert hits[0] == hits[1] and any(not line.endswith(":0") for line in hits[0])


def test_file_knows_what_it_is(full: Lab, truth: Path) -> None:
    dicom = sorted(os.listdir(full.demo.point / T1 / "DICOM"))[0]
    names = [
        f"DICOM/{dicom}",
        "NIFTI/sub001_MR1_T1_ALFA1.nii.gz",
        "NIFTI_PLAIN/sub001_MR1_T1_ALFA1.nii",
        "NIFTI/sub001_MR1_T1_ALFA1.json",
    ]
    on_mount = ok("file", "-b", *(full.demo.point / T1 / name for name in names))
    assert on_mount == ok("file", "-b", *(truth / "sub001_MR1/SCANS/2-T1_ALFA1" / name for name in names))
    assert "gzip compressed" in on_mount


# --- images -------------------------------------------------------------------------------------------------


def test_mrinfo_reads_headers(full: Lab, truth: Path) -> None:
    mounted = full.demo.point / T1
    for name in ("NIFTI/sub001_MR1_T1_ALFA1.nii.gz", "NIFTI_PLAIN/sub001_MR1_T1_ALFA1.nii"):
        on_mount = ok("mrinfo", "-quiet", "-size", "-spacing", "-transform", mounted / name)
        assert on_mount == ok(
            "mrinfo",
            "-quiet",
            "-size",
            "-spacing",
            "-transform",
            truth / "sub001_MR1/SCANS/2-T1_ALFA1" / name,
        )
        assert on_mount.split()[:3] == ["112", "112", "40"]


def test_mrconvert_maps_a_plain_nifti(full: Lab, truth: Path, tmp_path: Path) -> None:
    ok(
        "mrconvert",
        "-quiet",
        full.demo.point / T1 / "NIFTI_PLAIN/sub001_MR1_T1_ALFA1.nii",
        tmp_path / "out.nii",
    )
    made = nibabel.load(tmp_path / "out.nii")
    assert np.array_equal(made.dataobj, true_t1(truth).dataobj)


def test_mrconvert_reads_a_dicom_folder(full: Lab, truth: Path, tmp_path: Path) -> None:
    ok("mrconvert", "-quiet", full.demo.point / T1 / "DICOM", tmp_path / "out.nii")
    made = nibabel.as_closest_canonical(nibabel.load(tmp_path / "out.nii"))
    assert np.array_equal(made.dataobj, true_t1(truth).dataobj)


def test_mrconvert_reads_sidecars(full: Lab, truth: Path, tmp_path: Path) -> None:
    told = []
    for number, root in enumerate((full.demo.point / SUBJECT, truth)):
        stem = root / "sub001_MR1/SCANS/4-DWI/NIFTI/sub001_MR1_DWI"
        image, bvec, bval, json = (
            stem.with_suffix(ending) for ending in (".nii.gz", ".bvec", ".bval", ".json")
        )
        made = tmp_path / f"{number}.mif"
        ok("mrconvert", "-quiet", "-fslgrad", bvec, bval, "-json_import", json, image, made)
        told.append(ok("mrinfo", "-quiet", "-dwgrad", "-size", "-property", "PhaseEncodingDirection", made))
    assert told[0] == told[1] and "j-" in told[0] and len(told[0].splitlines()) > 7


def test_dcm2niix_makes_the_nifti_of_a_series(full: Lab, truth: Path, tmp_path: Path) -> None:
    ok("dcm2niix", "-z", "n", "-f", "out", "-o", tmp_path, full.demo.point / T1 / "DICOM")
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.json", "out.nii"]
    made, expected = nibabel.load(tmp_path / "out.nii"), true_t1(truth)
    assert np.array_equal(made.dataobj, expected.dataobj) and np.allclose(made.affine, expected.affine)


def test_dcmdump_reads_every_slice(full: Lab) -> None:
    slices = sorted((full.demo.point / T1 / "DICOM").iterdir())
    told = ok("dcmdump", "+P", "PatientID", *slices)
    assert told.count("[sub001_MR1]") + told.count("[sub001]") == len(slices) == 40


def test_nibabel_maps_a_plain_nifti_read_only(full: Lab, truth: Path) -> None:
    told = python(
        """
        import hashlib, sys, nibabel, numpy
        image = nibabel.load(sys.argv[1], mmap="r")
        assert isinstance(image.dataobj.get_unscaled(), numpy.memmap)
        print(hashlib.md5(numpy.asarray(image.dataobj).tobytes()).hexdigest(), image.dataobj[5, 6, 7])
        mapped = numpy.memmap(sys.argv[1], mode="r")
        print(hashlib.md5(mapped.tobytes()).hexdigest())
        """,
        full.demo.point / T1 / "NIFTI_PLAIN/sub001_MR1_T1_ALFA1.nii",
    ).split()
    data = np.asarray(true_t1(truth).dataobj)
    (file,) = full.files("ALFA", session="sub001_MR1", resource="NIFTI_PLAIN")
    assert told == [hashlib.md5(data.tobytes()).hexdigest(), str(data[5, 6, 7]), file.digest]


def test_a_mapped_file_of_many_megabytes_is_true_page_by_page(full: Lab) -> None:
    """Pages asked for in no order, while the file may still be on its way."""
    (file,) = (file for file in full.files("MESSY") if file.path == "forty.bin")
    told = python(
        """
        import hashlib, mmap, sys
        with open(sys.argv[1], "rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            for offset in (20_000_000, 0, len(mapped) - 4096, 4096):
                print(hashlib.md5(mapped[offset : offset + 4096]).hexdigest())
            print(hashlib.md5(mapped).hexdigest())
        """,
        full.demo.point / "projects/MESSY/subjects/m03/m03_catalogs/RESOURCES/LARGE/forty.bin",
    ).split()
    data = file.read()
    pages = [data[offset : offset + 4096] for offset in (20_000_000, 0, len(data) - 4096, 4096)]
    assert told == [hashlib.md5(piece).hexdigest() for piece in (*pages, data)]


def test_nibabel_reads_a_compressed_nifti(full: Lab, truth: Path) -> None:
    told = python(
        """
        import hashlib, sys, nibabel, numpy
        image = nibabel.load(sys.argv[1])
        print(image.shape, hashlib.md5(numpy.asarray(image.dataobj).tobytes()).hexdigest())
        """,
        full.demo.point / T1 / "NIFTI/sub001_MR1_T1_ALFA1.nii.gz",
    )
    assert (
        told.strip()
        == f"(112, 112, 40) {hashlib.md5(np.asarray(true_t1(truth).dataobj).tobytes()).hexdigest()}"
    )


def test_pydicom_reads_headers_and_pixels(full: Lab, truth: Path) -> None:
    code = """
        import hashlib, sys, pydicom
        from pathlib import Path
        for path in sorted(Path(sys.argv[1]).iterdir()):
            head = pydicom.dcmread(path, stop_before_pixels=True)
            whole = pydicom.dcmread(path)
            pixels = hashlib.md5(whole.PixelData).hexdigest()
            print(path.name, head.SOPInstanceUID, head.InstanceNumber, pixels)
        """
    told = python(code, full.demo.point / T1 / "DICOM")
    assert told == python(code, truth / "sub001_MR1/SCANS/2-T1_ALFA1/DICOM") and len(told.splitlines()) == 40


def test_simpleitk_reads_an_image_and_a_series(full: Lab, truth: Path) -> None:
    code = """
        import hashlib, sys
        from pathlib import Path
        import SimpleITK as sitk
        scan = sys.argv[1]
        image = sitk.ReadImage(scan + "/NIFTI/sub001_MR1_T1_ALFA1.nii.gz")
        reader = sitk.ImageSeriesReader()
        (series,) = reader.GetGDCMSeriesIDs(scan + "/DICOM")
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(scan + "/DICOM", series))
        for one in (image, reader.Execute()):
            pixels = hashlib.md5(sitk.GetArrayFromImage(one).tobytes()).hexdigest()
            print(one.GetSize(), one.GetSpacing(), one.GetOrigin(), pixels)
        """
    told = python(code, full.demo.point / T1)
    assert told == python(code, truth / "sub001_MR1/SCANS/2-T1_ALFA1") and told.count("(112, 112, 40)") == 2


def test_fslpy_finds_an_image_without_its_ending(full: Lab, truth: Path) -> None:
    code = """
        import hashlib, sys, numpy
        from fsl.data.image import Image
        image = Image(sys.argv[1])
        print(image.shape, hashlib.md5(numpy.ascontiguousarray(image[:]).tobytes()).hexdigest())
        """
    told = python(code, full.demo.point / T1 / "NIFTI/sub001_MR1_T1_ALFA1")
    assert (
        told == python(code, truth / "sub001_MR1/SCANS/2-T1_ALFA1/NIFTI/sub001_MR1_T1_ALFA1")
        and "(112, 112, 40)" in told
    )


# --- many at once -------------------------------------------------------------------------------------------


def test_many_readers_at_once_read_true_bytes(full: Lab, tmp_path: Path) -> None:
    """Eight processes walk a session that nobody has read, each in another order."""
    root = f"{tmp_path}/mnt/projects/ALFA/subjects/sub002"
    digests = {
        path.relative_to(full.demo.point): file.digest
        for path, file in full.people("ALFA").items()
        if file.subject == "sub002"
    }
    with mount(full.server.url, tmp_path) as mounted:
        command = f"find {root} -type f -print0 | shuf -z | xargs -0 md5sum"
        readers = [
            subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True) for _ in range(8)
        ]
        try:
            outputs = [reader.communicate(timeout=60)[0] for reader in readers]
        finally:
            for reader in readers:
                reader.kill()
        for output in outputs:
            assert {
                Path(line[34:]).relative_to(mounted.point): line[:32] for line in output.splitlines()
            } == digests
        assert [reader.returncode for reader in readers] == [0] * 8


FIO_JOBS = """
[global]
directory={point}
filename=written-by-fio.bin
filesize={size}
verify=crc32c
verify_interval=4096
verify_fatal=1
do_verify=1
allow_file_create=0
invalidate=0
group_reporting
[in-order]
rw=read
bs=128k
[at-random]
rw=randread
bsrange=4k-256k
blockalign=4k
numjobs=2
io_size=24m
[mapped]
rw=randread
ioengine=mmap
bs=4k
io_size=4m
[many-at-a-time]
rw=randread
ioengine=libaio
iodepth=16
bssplit=4k/50:64k/30:1m/20
blockalign=4k
io_size=32m
"""


def test_fio_verifies_every_block_in_every_order(tmp_path: Path) -> None:
    """fio wrote the file on a disk, each 4 KiB with its place and checksum; so it knows of every block it
    reads whether it is right.
    """
    size, written = 32 << 20, tmp_path / "written-by-fio.bin"
    ok(
        "fio",
        "--name=write",
        f"--filename={written}",
        f"--size={size}",
        "--rw=write",
        "--bs=4k",
        "--verify=crc32c",
        "--do_verify=0",
        "--verify_state_save=0",
    )
    archive = Archive(site="T")
    make = Maker(archive, datetime(2024, 1, 8, 9, 15))
    make.user("demo")
    make.project("P", "P", members=["demo"])
    session = make.experiment(make.subject(archive.projects["P"], "s"), "S", date="2024-01-08")
    entry = make.entry(written.name, PathContent(written), digest="")
    make.resource(session, "R", [entry])
    jobs = tmp_path / "jobs.fio"
    for damaged in (False, True):
        if damaged:  # one byte of a block: does this test see anything?
            data = bytearray(written.read_bytes())
            data[20 * MIB + 1000] ^= 1
            entry.content = BytesContent(bytes(data))
        with DemoServer(archive) as server, mount(server.url, tmp_path / str(damaged)) as mounted:
            server.switches.latency_ms, server.switches.bandwidth = 2, 60e6
            jobs.write_text(
                FIO_JOBS.format(point=mounted.point / "projects/P/subjects/s/S/RESOURCES/R", size=size)
            )
            done = run("fio", "--readonly", "--output-format=json", jobs, timeout=60, cwd=tmp_path)
            if damaged:
                assert done.returncode != 0 and "verify" in done.stderr, done.stderr
            else:
                assert done.returncode == 0, done.stdout + done.stderr
                told = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
                assert sum(one["read"]["io_bytes"] for one in told) >= size + (2 * 24 + 4 + 32) * MIB
                assert not any(one["error"] for one in told)


def test_rclone_finds_the_mount_equal_to_the_web_server(full: Lab, tmp_path: Path) -> None:
    """`rclone check --download` reads both sides, the mount and the stand-in's own WebDAV view, and compares
    every byte.
    """
    hidden = ok("rclone", "obscure", "demo").strip()
    remote = f":webdav,url='{full.server.url}/demo/plain/',vendor=other,user=demo,pass={hidden}:"
    compared = 0
    for session in ("sub001_MR1", "sub002_MR1"):
        scans = full.demo.point / "archive/projects/ALFA/experiments" / session / "SCANS"
        told = ok(
            *(
                "rclone",
                "check",
                "--download",
                "--combined",
                "-",
                "--config",
                tmp_path / "none",
                "--exclude",
                "/RESOURCES/**",
            ),
            *(f"{remote}ALFA/{session}", scans),
        )
        listed = sorted(line[2:] for line in told.splitlines() if line.startswith("= "))
        expected = [
            f"{file.scan}/{file.resource}/{file.path}"
            for file in full.files("ALFA", session=session, kind="scan")
        ]
        assert listed == sorted(expected) and len(told.splitlines()) == len(listed)
        compared += len(listed)
    assert compared > 100


def test_an_editor_that_writes_beside_its_input_is_told_so(full: Lab) -> None:
    refused = run("gunzip", "-k", full.demo.point / T1 / "NIFTI/sub001_MR1_T1_ALFA1.nii.gz")
    assert refused.returncode != 0 and "Read-only file system" in refused.stderr


def test_programs_that_look_at_free_space_see_some(full: Lab) -> None:
    """And `df` names the server."""
    line = ok("df", "-P", full.demo.point).splitlines()[1].split()
    assert line[0] == f"xnat:127.0.0.1:{full.server.port}" and int(line[3]) > 10**6
    assert xnatfs("status", str(full.demo.point), env=full.demo.env).returncode == 0
    assert os.access(full.demo.point, os.R_OK | os.X_OK)
