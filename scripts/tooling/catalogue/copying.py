"""Programs that copy, pack and back up."""

from __future__ import annotations

import tarfile
import zipfile

from tooling.checks import (
    both,
    copied,
    equal,
    one_file,
    prints_nothing,
    same_files,
    shows,
    tree,
    true_path,
    unpacked,
)
from tooling.program import Attempt, Program, python

SUBJECTS = "~/xnat/projects/ALFA/subjects"
SUBJECT = f"{SUBJECTS}/sub001"
TRUE_SUBJECT = "~/copy/projects/ALFA/subjects/sub001"
SESSION = f"{SUBJECT}/sub001_MR1"
T1 = f"{SESSION}/SCANS/2-T1_ALFA1"
SIDECAR = f"{T1}/NIFTI/sub001_MR1_T1_ALFA1.json"
VOLUMES = "~/xnat/tables/ALFA/ashs/volumes.csv"


def _dates_and_modes(_: Program, attempt: Attempt) -> str:
    source = attempt.mount / SESSION.removeprefix("~/xnat/")
    looked = 0
    for path in [source, *source.rglob("*")]:
        here, there = path.stat(), (attempt.work / "sub001_MR1" / path.relative_to(source)).stat()
        equal(f"date and mode of {path.name}", (there.st_mtime, there.st_mode), (here.st_mtime, here.st_mode))
        looked += 1
    return f"dates and modes kept ({looked} names)"


def _packed(attempt: Attempt, found: dict[str, bytes]) -> str:
    true = tree(true_path(attempt, SUBJECT))
    return same_files(found, {f"sub001/{name}": data for name, data in true.items()})


def _in_tar(_: Program, attempt: Attempt) -> str:
    found = {}
    with tarfile.open(attempt.work / "sub001.tar") as packed:
        for one in packed.getmembers():
            if (stream := packed.extractfile(one)) is not None:
                found[one.name] = stream.read()
    return _packed(attempt, found)


def _in_zip(_: Program, attempt: Attempt) -> str:
    with zipfile.ZipFile(attempt.work / "sub001.zip") as packed:
        return _packed(
            attempt, {name: packed.read(name) for name in packed.namelist() if not name.endswith("/")}
        )


def _restored(program: Program, attempt: Attempt) -> str:
    # restic keeps whole paths
    folder = f"out{attempt.home}/xnat/projects/ALFA/subjects/sub001"
    command = "RESTIC_PASSWORD=x restic -r repo restore latest --target out"
    return unpacked(SUBJECT, command, folder)(program, attempt)


COPYING = [
    Program("cp -r", "cp --version", f"cp -r {SUBJECT} .", copied(SUBJECT, "sub001")),
    Program(
        "cp -a",
        "cp --version",
        f"cp -a {SESSION} .",
        both(copied(SESSION, "sub001_MR1"), _dates_and_modes),
    ),
    Program("busybox cp", "busybox", f"busybox cp -r {SUBJECT} .", copied(SUBJECT, "sub001")),
    Program(
        "rsync -a",
        "rsync --version",
        f"rsync -a {SUBJECT} . && rsync -ai {SUBJECT} .",
        both(copied(SUBJECT, "sub001"), prints_nothing("the second run has nothing to do")),
    ),
    Program(
        "rsync --checksum",
        "rsync --version",
        f"rsync -rci --dry-run {SUBJECT}/ {TRUE_SUBJECT}/",
        prints_nothing("none of the true files would be replaced"),
    ),
    Program("rclone", "rclone version", f"rclone copy {SUBJECT} sub001", copied(SUBJECT, "sub001")),
    Program(
        "rclone, a table",
        "rclone version",
        f"rclone copy {VOLUMES} .",
        one_file(VOLUMES, "volumes.csv"),
        "The first of its three tries finds another size than the listing's, and fails; the second copies.",
    ),
    Program(
        "gio copy",
        "gio version",
        f"gio copy {SIDECAR} .",
        one_file(SIDECAR, "sub001_MR1_T1_ALFA1.json"),
        "The library that Nautilus, Nemo and Thunar copy with.",
    ),
    Program(
        "mc, a table",
        "mc --version",
        f"mc {VOLUMES.removesuffix('/volumes.csv')} .",
        both(one_file(VOLUMES, "volumes.csv"), shows(r"volumes\.csv +│ +7149│")),
        "Midnight Commander; keys: Ctrl-S volumes.csv F5 Enter F10.",
        keys=(
            ("Copy", "C-s"),
            ("│/", "volumes.csv"),
            ("volumes.csv", "F5"),
            ("[< OK >]", "Enter"),
            ("7149", "F10"),
        ),
    ),
    Program(
        "mc, a folder",
        "mc --version",
        f"mc {SUBJECTS} .",
        copied(SUBJECT, "sub001"),
        "Midnight Commander; keys: Ctrl-S sub001 F5 Enter F10. It adds up the sizes first.",
        keys=(
            ("Copy", "C-s"),
            ("│/", "sub001"),
            ("sub001 ", "F5"),
            ("[< OK >]", "Enter"),
            ("││/sub001", "F10"),
        ),
    ),
    Program("tar", "tar --version", f"tar -cf sub001.tar -C {SUBJECTS} sub001", _in_tar),
    Program("zip", "zip -v", f"(cd {SUBJECTS} && zip -qr - sub001) > sub001.zip", _in_zip),
    Program(
        "7z",
        "7z",
        f"7z a -bd sub001.7z {SUBJECT}",
        unpacked(SUBJECT, "7z x -bd -oout sub001.7z", "out/sub001"),
    ),
    Program(
        "cpio",
        "cpio --version",
        f"(cd {SUBJECTS} && find sub001 | cpio --quiet -o -H newc) > sub001.cpio",
        unpacked(SUBJECT, "cpio --quiet -id < sub001.cpio", "sub001"),
    ),
    Program(
        "pigz",
        "pigz --version",
        f"pigz -c {T1}/NIFTI_PLAIN/*.nii > t1.nii.gz && gunzip -k t1.nii.gz",
        one_file(f"{T1}/NIFTI_PLAIN/sub001_MR1_T1_ALFA1.nii", "t1.nii"),
    ),
    Program(
        "mksquashfs",
        "mksquashfs -version",
        f"mksquashfs {SUBJECT} sub001.sqfs -quiet -no-progress",
        unpacked(SUBJECT, "unsquashfs -quiet -no-progress -d out sub001.sqfs", "out"),
    ),
    Program(
        "restic",
        "restic version",
        f"export RESTIC_PASSWORD=x; restic -r repo init && restic -r repo backup {SUBJECT}",
        _restored,
    ),
    Program(
        "borg",
        "borg --version",
        f"borg init -e none repo && (cd {SUBJECTS} && borg create $OLDPWD/repo::today sub001)",
        unpacked(SUBJECT, "borg extract repo::today", "sub001"),
    ),
    Program(
        "rdiff-backup",
        "rdiff-backup --version",
        f"rdiff-backup backup {SUBJECT} sub001 && rm -r sub001/rdiff-backup-data",
        copied(SUBJECT, "sub001"),
    ),
    Program(
        "unison",
        "unison -version",
        f"unison {SUBJECT} sub001 -batch -silent -force {SUBJECT}",
        copied(SUBJECT, "sub001"),
    ),
    Program(
        "git add",
        "git --version",
        "git init -q --bare r.git && "
        f"git --git-dir=r.git --work-tree=$HOME/{SUBJECT.removeprefix('~/')} add -A",
        unpacked(
            SUBJECT,
            "git --git-dir=r.git archive $(git --git-dir=r.git write-tree) | tar -x --one-top-level=out",
            "out",
        ),
    ),
    Program(
        "shutil.copytree",
        "python3 --version",
        python("import shutil, sys", 'shutil.copytree(sys.argv[1], "sub001")', on=SUBJECT),
        copied(SUBJECT, "sub001"),
        "Python",
    ),
    Program(
        "tarfile, a table",
        "python3 --version",
        f"python3 -m tarfile -c t.tar {VOLUMES} && tar -xf t.tar --transform 's,.*/,,'",
        one_file(VOLUMES, "volumes.csv"),
        "Python. A table that was not built before says 16 TiB, and it wants as many bytes. `head -c1 FILE` "
        "first, or GNU tar.",
        fails="unexpected end of data",
    ),
    Program(
        "tar, a table",
        "tar --version",
        f"tar -cf t.tar {VOLUMES} && tar -xf t.tar --transform 's,.*/,,'",
        one_file(VOLUMES, "volumes.csv"),
    ),
]
