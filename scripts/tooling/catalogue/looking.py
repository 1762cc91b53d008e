"""Programs that list, search and show."""

from __future__ import annotations

import json

from tooling.catalogue.copying import SESSION, SIDECAR, SUBJECT, T1, TRUE_SUBJECT
from tooling.checks import equal, prints, prints_nothing, same_output, shows, tree, true_path
from tooling.program import Attempt, Program, WrongError


def _total(attempt: Attempt) -> int:
    return sum(map(len, tree(true_path(attempt, SUBJECT)).values()))


def _usage(_: Program, attempt: Attempt) -> str:
    folders = 1 + sum(path.is_dir() for path in true_path(attempt, SUBJECT).rglob("*"))
    true = _total(attempt)
    equal("bytes without those of folders", int(attempt.output.split()[0]) - 4096 * folders, true)
    return f"{true:,} bytes of files, as on a local disk"


def _exported(_: Program, attempt: Attempt) -> str:
    def total(node: list[object] | dict[str, int]) -> int:
        if isinstance(node, dict):
            return node.get("asize", 0)
        return sum(total(one) for one in node[1:])  # type: ignore[arg-type]

    true = _total(attempt)
    equal("bytes", total(json.loads((attempt.work / "usage.json").read_text())[3]), true)
    return f"{true:,} bytes of files, as on a local disk"


def _names(_: Program, attempt: Attempt) -> str:
    true = sorted(f"{SUBJECT}/{name}" for name in tree(true_path(attempt, SUBJECT)))
    equal("names", sorted(attempt.output.split()), true)
    return f"all {len(true)} files, each once"


def _digest(_: Program, attempt: Attempt) -> str:
    equal("the digest", attempt.output, attempt.on_copy(f"md5sum {SIDECAR}").output[:32])
    return "XNAT's MD5 is that of the true file"


def _event(_: Program, attempt: Attempt) -> str:
    if "ACCESS" not in attempt.output:
        raise WrongError(f"no event: {attempt.output!r}")
    return "sees the read"


LOOKING = [
    Program(
        "ls",
        "ls --version",
        f"ls -Rl --time-style=+ {SUBJECT} | awk '/^-/ {{print $1, $5, $6}}'",
        same_output(r"nii\.gz"),
    ),
    Program("find", "find --version", f"find {SUBJECT} -type f", _names),
    Program(
        "find -size",
        "find --version",
        f"find {SUBJECT} -name '*.nii.gz' -size +100k | sort",
        same_output(r"nii\.gz", "files"),
    ),
    Program("fd", "fdfind --version", f"fdfind -t f . {SUBJECT}", _names, "Looks into folders in parallel."),
    Program(
        "tree",
        "tree --version",
        f"cd {SUBJECT} && tree -s --noreport -P '*.nii.gz' --prune",
        same_output(r"nii\.gz"),
    ),
    Program(
        "bash",
        "bash --version",
        f"shopt -s globstar; ls {SUBJECT}/**/*.nii.gz",
        same_output(r"nii\.gz", "files"),
        "`**` walks the folders.",
    ),
    Program("du", "du --version", f"du -s --apparent-size -B1 {SUBJECT}", _usage),
    Program("ncdu", "ncdu --version", f"ncdu -0 -o usage.json {SUBJECT}", _exported),
    Program("df", "df --version", "df --output=fstype,target ~/xnat | tail -1", prints("fuse.xnatfs ~/xnat")),
    Program(
        "stat",
        "stat --version",
        f"stat -c '%s %A %h %F %n' {T1}/NIFTI/* {T1}/DICOM/*",
        same_output("rw-r--r-- 1"),
    ),
    Program(
        "file",
        "file --version",
        f"file -b {T1}/NIFTI/* {T1}/NIFTI_PLAIN/* {T1}/DICOM/*",
        same_output("NIfTI-1"),
    ),
    Program(
        "getfattr", "getfattr --version", f"getfattr --only-values -n user.xnat.digest {SIDECAR}", _digest
    ),
    Program("gio list", "gio version", f"gio list -l {T1}/NIFTI | cut -f1,2", same_output(r"nii\.gz")),
    Program(
        "ranger",
        "ranger --version",
        f"ranger {T1}/NIFTI",
        shows(r"sub001_MR1_T1_ALFA1\.nii\.gz +[\d.]+ K"),
        "Keys: q.",
        keys=(("nii.gz  ", "q"),),
    ),
    Program(
        "nnn",
        "nnn -V",
        f"nnn -d {T1}/NIFTI",
        shows(r"-rw-r--r-- +[\d.]+K sub001_MR1_T1_ALFA1\.nii\.gz|[\d.]+K +sub001_MR1_T1_ALFA1\.nii\.gz"),
        "Keys: q.",
        keys=(("T1_ALFA1.nii.gz", "q"),),
    ),
    Program(
        "fdupes",
        "fdupes --version",
        f"fdupes -rq -o name {SESSION}",
        same_output("recon-all"),
        "Reads the files of equal size.",
    ),
    Program(
        "diff -r",
        "diff --version",
        f"diff -r {SUBJECT} {TRUE_SUBJECT}",
        prints_nothing("no difference from the true files"),
    ),
    Program(
        "inotifywait",
        "inotifywait --help",
        f"inotifywait -q -t 9 -e access {T1}/NIFTI & sleep 2; cat {SIDECAR}; wait",
        _event,
        "Sees what programs of this machine do, as on NFS, and not what changes on the server.",
    ),
]
