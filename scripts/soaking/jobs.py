"""What a worker does: real tools and plain reads on the mount, every byte they give compared with the truth.

Each job is a function of a `Desk`; it raises `WrongError` for a byte, a name or a number that is not true,
`OSError` (with the errno of the reader or of what the tool complained about) for an error of the mount,
`StuckError` for what takes too long. One thread, in a process of its own, as everything here touches the
mount."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from soaking.truth import MIB, Folder, Truth
from xnatfs.demo.data.truth import TrueFile

_PIECE = 1 << 20
_PROMPT = 2.0  # seconds within which it has to
_INTERRUPT = 20.0  # seconds a program may take to end after Ctrl-C before it counts as stuck
_ERRNOS = {os.strerror(number): number for number in errno.errorcode}
_COMPLAINT = re.compile("|".join(sorted(map(re.escape, _ERRNOS), key=len, reverse=True)))


class WrongError(Exception):
    """Something the mount showed is not true."""


class StuckError(Exception):
    """Something did not end."""


@dataclass
class Desk:
    """What a worker works with."""

    truth: Truth
    point: Path
    scratch: Path
    chance: random.Random
    limit: float  # seconds a tool may take
    environment: dict[str, str]
    references: dict[str, str]  # what tools make of true files: digest by what was made
    timed: Callable[[str, float], None]  # told of each single operation within a job
    compared: int = 0  # bytes
    touched: list[str] = field(default_factory=list)  # paths whose pages the kernel has now
    slow: list[str] = field(default_factory=list)  # what took longer than it may, though it ended
    facts: dict[str, str] = field(default_factory=dict)  # what has to be the same for all workers

    def path(self, below: str) -> str:
        """The full path."""
        return str(self.point / below)

    @contextmanager
    def clock(self, kind: str) -> Iterator[None]:
        """Time one operation."""
        begin = time.perf_counter()
        yield
        self.timed(kind, time.perf_counter() - begin)

    def same(self, what: str, found: object, true: object) -> None:
        """Compare anything."""
        if found != true:
            raise WrongError(f"{what}: {str(found)[:200]!r} in place of {str(true)[:200]!r}")

    def digest(self, what: str, digest: str, file: TrueFile) -> None:
        """Compare a whole file by its MD5."""
        self.same(f"MD5 of {what}", digest, file.digest)
        self.compared += file.size

    def start(self, *command: str, output: int | IO[bytes] = subprocess.PIPE) -> subprocess.Popen[bytes]:
        """Start a tool."""
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, env=self.environment
        )

    def run(self, *command: str) -> bytes:
        """Run a tool to its end."""
        process = self.start(*command)
        try:
            output, complaint = process.communicate(timeout=self.limit)
        except subprocess.TimeoutExpired:
            raise StuckError(f"{command[0]} took longer than {self.limit:.0f} s: {command}") from None
        finally:
            process.kill()
        check(command, process.returncode, complaint)
        return output


def check(command: tuple[str, ...], status: int, complaint: bytes) -> None:
    """A tool that failed becomes the error it complained about."""
    if status:
        text = complaint.decode(errors="replace").strip()
        found = _COMPLAINT.search(text)
        raise OSError(
            _ERRNOS[found[0]] if found else errno.ENOMSG, f"{command[0]} ended with {status}: {text[-300:]}"
        )


@contextmanager
def made(desk: Desk) -> Iterator[Path]:
    """A folder for what a tool writes."""
    folder = desk.scratch / "made"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def md5(stream: IO[bytes]) -> str:
    """MD5 of all that comes."""
    digest = hashlib.md5(usedforsecurity=False)
    while piece := stream.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def check_copy(desk: Desk, copy: Path, folder: Folder) -> None:
    """A copy has all files of the folder, no others, and the true bytes."""
    found = {str(path.relative_to(copy)): path for path in copy.rglob("*") if path.is_file()}
    desk.same(f"names in a copy of {folder.path}", sorted(found), sorted(folder.files))
    for name, path in found.items():
        with path.open("rb") as stream:
            desk.digest(f"the copy of {folder.path}/{name}", md5(stream), folder.files[name])
    desk.touched += [f"{folder.path}/{name}" for name in folder.files]


# --- copies -------------------------------------------------------------------------------------------------


def cp(desk: Desk) -> None:
    """`cp -r` of a subtree."""
    folder = desk.truth.folder(desk.chance, 50 * MIB)
    with made(desk) as target:
        desk.run("cp", "-r", desk.path(folder.path), str(target / "copy"))
        check_copy(desk, target / "copy", folder)


def rsync(desk: Desk) -> None:
    """`rsync -a`, and a second run that has nothing to do."""
    folder = desk.truth.folder(desk.chance, 50 * MIB)
    with made(desk) as target:
        words = ("rsync", "-a", desk.path(folder.path) + "/", str(target / "copy"))
        desk.run(*words)
        check_copy(desk, target / "copy", folder)
        again = desk.run(*words, "--itemize-changes", "--dry-run").decode()
        desk.same(
            f"what a second rsync of {folder.path} would do",
            [line for line in again.splitlines() if line[:1] == ">"],
            [],
        )


def tar(desk: Desk) -> None:
    """`tar` of a subtree into a pipe."""
    folder = desk.truth.folder(desk.chance, 50 * MIB)
    process = desk.start("tar", "-C", desk.path(folder.path), "-cf", "-", ".")
    assert process.stdout is not None and process.stderr is not None
    found = []
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                body = archive.extractfile(member)
                if body is not None:
                    name = member.name.removeprefix("./")
                    found.append(name)
                    desk.digest(f"{folder.path}/{name} in a tar", md5(body), folder.files[name])
        process.stdout.read()
        complaint = process.stderr.read()
        process.wait(desk.limit)
    except (tarfile.TarError, EOFError):
        complaint = process.communicate(timeout=desk.limit)[1]
        check(("tar",), process.returncode or 1, complaint)
    finally:
        process.kill()
        process.wait(desk.limit)
        process.stdout.close()
        process.stderr.close()
    check(("tar",), process.returncode, complaint)
    desk.same(f"names in a tar of {folder.path}", sorted(found), sorted(folder.files))
    desk.touched += [f"{folder.path}/{name}" for name in folder.files]


# --- reading ------------------------------------------------------------------------------------------------


def cat(desk: Desk) -> None:
    """`cat` of a file of any size."""
    path, file = desk.truth.file(desk.chance, suffix=desk.chance.choice(["", "", ".nii", ".bin"]))
    process = desk.start("cat", desk.path(path))
    assert process.stdout is not None
    try:
        digest = md5(process.stdout)
        _, complaint = process.communicate(timeout=desk.limit)
    finally:
        process.kill()
    check(("cat", path), process.returncode, complaint)
    desk.digest(path, digest, file)
    desk.touched.append(path)


def md5sum(desk: Desk) -> None:
    """`md5sum` of the files of one folder, in order or not: how DICOM tools walk."""
    folder = desk.truth.folder(desk.chance, 60 * MIB)
    names = sorted(folder.own or folder.files)[: desk.chance.choice([40, 200, 1000])]
    held = folder.own or folder.files
    if desk.chance.random() < 0.5:
        desk.chance.shuffle(names)
    output = desk.run("md5sum", *(f"{desk.path(folder.path)}/{name}" for name in names))
    lines = output.decode().splitlines()
    desk.same(f"lines of md5sum in {folder.path}", len(lines), len(names))
    for name, line in zip(names, lines, strict=True):
        desk.digest(f"{folder.path}/{name}", line[:32], held[name])
    desk.touched += [f"{folder.path}/{name}" for name in names]


def dd(desk: Desk) -> None:
    """`dd` of blocks from the middle of a file."""
    path, file = desk.truth.file(desk.chance, least=64 * 1024)
    block = desk.chance.choice([4096, 65536, MIB])
    skip = desk.chance.randrange(max(1, file.size // block))
    count = desk.chance.choice([1, 4, 32])
    output = desk.run(
        "dd", f"if={desk.path(path)}", f"bs={block}", f"skip={skip}", f"count={count}", "status=none"
    )
    true = file.entry.content.read(skip * block, block * count) if file.entry.content else b""
    if output != true:
        raise WrongError(
            f"dd of {path}, block {skip} x {block}: {len(output)} bytes in place of {len(true)}, or others"
        )
    desk.compared += len(output)
    desk.touched.append(path)


def pread(desk: Desk) -> None:
    """Random reads from one open file, as viewers and memory maps make them."""
    path, file = desk.truth.file(desk.chance, least=1, suffix=desk.chance.choice(["", ".nii", ".bin", ".gz"]))
    assert file.entry.content is not None
    with desk.clock("(open)"):
        descriptor = os.open(desk.path(path), os.O_RDONLY)
    try:
        desk.same(f"size of {path}", os.fstat(descriptor).st_size, file.size)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        for _ in range(desk.chance.choice([1, 5, 30])):
            length = desk.chance.choice([1, 512, 4096, 65536, 262144])
            offset = desk.chance.randrange(file.size)
            with desk.clock("(pread)"):
                data = os.pread(descriptor, length, offset)
            if data != file.entry.content.read(offset, length):
                raise WrongError(f"{path}: {length} bytes at {offset} are wrong")
            desk.compared += len(data)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


# --- looking ------------------------------------------------------------------------------------------------


def find(desk: Desk) -> None:
    """`find -ls` of a subtree: all names and sizes."""
    folder = desk.truth.folders[desk.chance.choice(sorted(desk.truth.folders))]
    lines = desk.run("find", desk.path(folder.path), "-type", "f", "-ls").decode().splitlines()
    start = len(desk.path(folder.path)) + 1
    found = {fields[10][start:]: int(fields[6]) for fields in (line.split(maxsplit=10) for line in lines)}
    desk.same(
        f"files and sizes in {folder.path}",
        sorted(found.items()),
        sorted((name, one.size) for name, one in folder.files.items()),
    )


def look(desk: Desk) -> None:
    """List some folders and look at their files, as a file manager does."""
    for _ in range(5):
        folder = desk.truth.folders[desk.chance.choice(sorted(desk.truth.folders))]
        with desk.clock("(list a folder)"):
            names = os.listdir(desk.path(folder.path))
        wanted = {name.partition("/")[0] for name in folder.files}
        desk.same(f"names in {folder.path}", wanted <= set(names), True)
        for name in desk.chance.sample(sorted(folder.own), min(5, len(folder.own))):
            with desk.clock("(stat)"):
                size = os.stat(f"{desk.path(folder.path)}/{name}").st_size
            desk.same(f"size of {folder.path}/{name}", size, folder.own[name].size)


def getfattr(desk: Desk) -> None:
    """`getfattr -d` of some files."""
    folder = desk.truth.folder(desk.chance, 1 << 40)
    names = desk.chance.sample(sorted(folder.files), min(10, len(folder.files)))
    output = desk.run(
        "getfattr", "-d", "--absolute-names", *(f"{desk.path(folder.path)}/{name}" for name in names)
    ).decode()
    blocks = [block for block in output.split("\n\n") if block.strip()]
    desk.same(f"blocks of getfattr in {folder.path}", len(blocks), len(names))
    for name, block in zip(names, blocks, strict=True):
        found = dict(re.findall(r'^user\.xnat\.(\w+)="(.*)"$', block, re.MULTILINE))
        file = folder.files[name]
        desk.same(f"digest of {folder.path}/{name}", found.get("digest", ""), file.listed_digest)
        desk.same(f"uri of {folder.path}/{name}", found.get("uri", "").endswith(f"/files/{file.path}"), True)


# --- programs of the trade ----------------------------------------------------------------------------------


def dcm2niix(desk: Desk) -> None:
    """dcm2niix of a scan; the image has to be the one it makes of the true files."""
    path = "projects/DCM/subjects/dcm/dcm_MR1/SCANS/1-T1/DICOM"
    with made(desk) as target:
        convert_dicom(desk.run, desk.path(path), target)
        desk.same("what dcm2niix makes", image_digest(target), desk.references["dcm2niix"])
    files = desk.truth.folders[path].files
    desk.compared += sum(file.size for file in files.values())
    desk.touched += [f"{path}/{name}" for name in files]


def convert_dicom(run: Callable[..., bytes], source: str, target: Path) -> None:
    """Run dcm2niix."""
    run("dcm2niix", "-b", "n", "-z", "n", "-f", "image", "-o", str(target), source)


def image_digest(folder: Path) -> str:
    """MD5 of the one image in a folder."""
    (image,) = folder.glob("*.nii")
    with image.open("rb") as stream:
        return md5(stream)


def mrtrix(desk: Desk) -> None:
    """mrinfo (maps the header) and mrconvert (maps the image)."""
    path, file = desk.truth.file(desk.chance, most=60 * MIB, suffix=".nii")
    size = desk.run("mrinfo", "-quiet", "-size", desk.path(path)).decode()
    desk.same(f"mrinfo of {path}", size.split(), desk.references[f"mrinfo {file.path}"].split())
    with made(desk) as target:
        convert_image(desk.run, desk.path(path), target)
        desk.same(
            f"what mrconvert makes of {path}", image_digest(target), desk.references[f"mrconvert {file.path}"]
        )
    desk.compared += file.size
    desk.touched.append(path)


def convert_image(run: Callable[..., bytes], source: str, target: Path) -> None:
    """Run mrconvert."""
    run("mrconvert", "-quiet", "-nthreads", "1", source, str(target / "image.nii"))


def nibabel(desk: Desk) -> None:
    """nibabel: a header, a slice, and of the smaller ones all voxels."""
    import nibabel as nib
    import numpy as np

    path, file = desk.truth.file(desk.chance, suffix=".nii")
    assert file.entry.content is not None
    image: Any = nib.Nifti1Image.from_filename(
        desk.path(path)
    )  # `load` takes a file it cannot read for one of another type
    desk.same(f"shape of {path}", tuple(image.shape), struct.unpack("<3h", file.entry.content.read(42, 6)))
    voxels = image.dataobj
    slices = image.shape[2]
    number = desk.chance.randrange(slices)
    found = np.asarray(voxels[:, :, number]).tobytes(order="F")
    desk.same(f"a slice of {path}", found == file.entry.content.read(352 + number * MIB, MIB), True)
    desk.compared += MIB
    if file.size < 60 * MIB:
        desk.same(
            f"voxels of {path}",
            np.asarray(voxels).tobytes(order="F") == file.entry.content.read(352, slices * MIB),
            True,
        )
        desk.compared += slices * MIB
    desk.touched.append(path)


# --- the other sections -------------------------------------------------------------------------------------


def table(desk: Desk) -> None:
    """A table of a project or of one session, by value; one in another format, which has to be the same for
    everybody.
    """
    label = desk.chance.choice(["", *sorted(desk.truth.aseg)])
    part = f"sessions/{label}/" if label else ""
    data = Path(desk.path(f"tables/COHORT/{part}freesurfer6/aseg.csv")).read_bytes()
    found: dict[str, dict[tuple[str, str], str]] = {}
    for row in csv.DictReader(data.decode().splitlines()):
        found.setdefault(row["label"], {})[row["measurement"], row["region"]] = row["value"]
    desk.same("values in aseg.csv", found, {label: desk.truth.aseg[label]} if label else desk.truth.aseg)
    desk.compared += len(data)
    name = desk.chance.choice(
        ["freesurfer6/aparc.parquet", "freesurfer6/aseg_wide.csv", "ashs/volumes.xlsx", "ashs/volumes.csv"]
    )
    data = Path(desk.path(f"tables/COHORT/{name}")).read_bytes()
    desk.facts[name] = hashlib.md5(data, usedforsecurity=False).hexdigest()


def view(desk: Desk) -> None:
    """Files in a flat view."""
    folder = desk.truth.flat
    desk.same(f"names in {folder.path}", sorted(os.listdir(desk.path(folder.path))), sorted(folder.files))
    names = desk.chance.sample(sorted(folder.files), min(3, len(folder.files)))
    lines = desk.run("md5sum", *(f"{desk.path(folder.path)}/{name}" for name in names)).decode().splitlines()
    for name, line in zip(names, lines, strict=True):
        desk.digest(f"{folder.path}/{name}", line[:32], folder.files[name])
    desk.touched += [f"{folder.path}/{name}" for name in names]


def status(desk: Desk) -> None:
    """`xnatfs status`."""
    output = desk.run(sys.executable, "-m", "xnatfs", "status", str(desk.point)).decode()
    desk.same("status names the mount", str(desk.point) in output, True)


def refresh(desk: Desk) -> None:
    """`xnatfs refresh`: everything is looked at again."""
    desk.run(sys.executable, "-m", "xnatfs", "refresh", str(desk.point))


def _where(pid: int) -> str:
    """In what state and place of the kernel a process waits, as far as this user may see it."""
    told = []
    for name in ("stat", "wchan", "stack"):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/{name}").read_text(errors="replace")
            told.append(text.rpartition(")")[2].split()[0] if name == "stat" else " ".join(text.split()))
    return ", ".join(told)


def interrupt(desk: Desk) -> None:
    """Ctrl-C in the middle of a read."""
    path, _ = desk.truth.file(desk.chance, least=64 * 1024)
    folder = desk.truth.folder(desk.chance, 60 * MIB)
    commands = [
        ("cat", desk.path(path)),
        ("head", "-c", "100M", desk.path(path)),
        ("md5sum", *(f"{desk.path(folder.path)}/{name}" for name in sorted(folder.files)[:500])),
        ("ls", "-lR", desk.path(folder.path)),
    ]
    command = desk.chance.choice(commands)
    process = desk.start(*command, output=subprocess.DEVNULL)
    try:
        time.sleep(desk.chance.random() ** 2)
        process.send_signal(signal.SIGINT)
        with desk.clock("(Ctrl-C until it has ended)"):
            try:
                _, complaint = process.communicate(timeout=_PROMPT)
            except subprocess.TimeoutExpired:
                desk.slow.append(f"{' '.join(command)[:200]} went on after Ctrl-C, {_where(process.pid)}")
                _, complaint = process.communicate(timeout=_INTERRUPT)
    except subprocess.TimeoutExpired:
        raise StuckError(f"{command[0]} went on for {_INTERRUPT:.0f} s after Ctrl-C: {command}") from None
    finally:
        process.kill()
    if process.returncode > 0 and b"Interrupted" not in complaint:
        check(command, process.returncode, complaint)


JOBS: dict[Callable[[Desk], None], int] = {
    cp: 10,
    rsync: 6,
    tar: 5,
    cat: 10,
    md5sum: 10,
    dd: 8,
    pread: 16,
    find: 5,
    look: 8,
    getfattr: 4,
    dcm2niix: 2,
    mrtrix: 3,
    nibabel: 5,
    table: 4,
    view: 3,
    status: 1,
    refresh: 1,
    interrupt: 5,
}


def references(run: Callable[..., bytes], truth: Truth, folder: Path) -> dict[str, str]:
    """What the tools make of the true files themselves, written to a folder of this disk."""
    found: dict[str, str] = {}
    source, target = folder / "dicom", folder / "image"
    source.mkdir()
    target.mkdir()
    for name, file in truth.folders["projects/DCM/subjects/dcm/dcm_MR1/SCANS/1-T1/DICOM"].files.items():
        (source / name).write_bytes(file.read())
    convert_dicom(run, str(source), target)
    found["dcm2niix"] = image_digest(target)
    for path, file in truth.files.items():
        if path.startswith("projects/BIG/") and file.path.endswith(".nii") and file.size <= 60 * MIB:
            local = folder / file.path
            local.write_bytes(file.read())
            found[f"mrinfo {file.path}"] = run("mrinfo", "-quiet", "-size", str(local)).decode()
            shutil.rmtree(target)
            target.mkdir()
            convert_image(run, str(local), target)
            found[f"mrconvert {file.path}"] = image_digest(target)
    return found
