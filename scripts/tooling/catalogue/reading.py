"""Programs that read the bytes of files, whole or in part."""

from __future__ import annotations

from tooling.catalogue.copying import SESSION, SUBJECT, T1, TRUE_SUBJECT
from tooling.checks import equal, prints_nothing, same_output, shows
from tooling.program import Attempt, Program, WrongError, python

LARGE = "projects/MESSY/subjects/m03/m03_catalogs/RESOURCES/LARGE/forty.bin"
FORTY = f"~/xnat/{LARGE}"
STATS = f"{SESSION}/RESOURCES/FREESURFER7/sub001_MR1/stats/aseg.stats"
TITLE = "# Title Segmentation Statistics"


def _sums(program: str) -> str:
    made = f"(cd {TRUE_SUBJECT} && find . -type f -exec {program} {{}} +) > sums"
    return f"{made}; cd {SUBJECT} && {program} -c $OLDPWD/sums"


def _all_ok(_: Program, attempt: Attempt) -> str:
    lines = attempt.output.splitlines()
    if not lines:
        raise WrongError("no sum was compared")
    equal("what is not OK", [line for line in lines if not line.endswith(": OK")], [])
    return f"{len(lines)} sums made of the true files are OK"


READING = [
    Program("md5sum -c", "md5sum --version", _sums("md5sum"), _all_ok),
    Program("sha256sum -c", "sha256sum --version", _sums("sha256sum"), _all_ok),
    Program(
        "hashdeep",
        "hashdeep -V",
        f"cd {SUBJECT} && hashdeep -rl -j2 . | sort",
        same_output(r"nii\.gz"),
        "Two threads.",
    ),
    Program(
        "cmp",
        "cmp --version",
        f"cmp {FORTY} ~/copy/{LARGE}",
        prints_nothing("40 MB, no difference from the true file"),
    ),
    Program("head -c", "head --version", f"head -c 1000 {FORTY} | md5sum", same_output()),
    Program("tail -c", "tail --version", f"tail -c 1000 {FORTY} | md5sum", same_output()),
    Program(
        "dd",
        "dd --version",
        f"dd if={FORTY} bs=64k skip=300 count=3 status=none | md5sum",
        same_output(),
        "Three blocks from the middle of 40 MB.",
    ),
    Program(
        "xargs -P",
        "xargs --version",
        f"find {SUBJECT} -type f -print0 | xargs -0 -P 8 -n 4 md5sum | sort -k2",
        same_output(r"nii\.gz"),
        "Eight processes.",
    ),
    Program(
        "parallel",
        "parallel --version",
        f"find {SESSION} -name '*.dcm' | sort | parallel -j 8 -k md5sum",
        same_output("dcm"),
        "Eight processes.",
    ),
    Program(
        "grep -r",
        "grep --version",
        f"grep -rc EstimatedTotalIntraCranialVol {SESSION}/RESOURCES | sort",
        same_output(":[1-9]"),
    ),
    Program(
        "ripgrep",
        "rg --version",
        f"rg --sort path EstimatedTotalIntraCranialVol {SUBJECT}",
        same_output("eTIV"),
        "Reads in parallel.",
    ),
    Program("less", "less --version", f"less {STATS}", shows(TITLE), "Keys: q.", keys=(("Title", "q"),)),
    Program(
        "vim",
        "vim --version",
        f"vim -R {STATS}",
        shows(TITLE),
        "Keys: :q! Enter.",
        keys=(("Title", ":q!"), (":q!", "Enter")),
    ),
    Program(
        "nano", "nano --version", f"nano -v {STATS}", shows(TITLE), "Keys: Ctrl-X.", keys=(("Title", "C-x"),)
    ),
    Program(
        "jq",
        "jq --version",
        f"jq -c '[.EchoTime, .RepetitionTime]' {SUBJECT}/*/SCANS/*/NIFTI/*.json",
        same_output(r"\[0\."),
    ),
    Program(
        "awk",
        "gawk --version",
        "awk '$5 == \"Left-Hippocampus\" {print FILENAME, $4}' "
        f"{SUBJECT}/*/RESOURCES/FREESURFER7/*/stats/aseg.stats",
        same_output("stats"),
    ),
    Program(
        "perl",
        "perl --version",
        "perl -MDigest::MD5 -E 'for (@ARGV) { open F, q(<:raw), $_; "
        f"say Digest::MD5->new->addfile(*F)->hexdigest }}' {T1}/DICOM/*",
        same_output(what="slices"),
    ),
    Program(
        "Node.js",
        "node --version",
        'node -e \'const fs = require("fs"), hash = () => require("crypto").createHash("md5"); '
        "for (const f of process.argv.slice(1)) "
        'console.log(hash().update(fs.readFileSync(f)).digest("hex"))\''
        f" {T1}/DICOM/*",
        same_output(what="slices"),
    ),
    Program(
        "Python mmap",
        "python3 --version",
        python(
            "import hashlib, mmap, os, sys",
            "m = mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, prot=mmap.PROT_READ)",
            "print(hashlib.md5(m[20_000_000:20_004_096]).hexdigest(), hashlib.md5(m).hexdigest())",
            on=FORTY,
        ),
        same_output(),
        "A page from the middle of 40 MB first, then all.",
    ),
    Program(
        "zipfile, a table",
        "python3 --version",
        "python3 -m zipfile -l ~/xnat/tables/ALFA/ashs/volumes.xlsx",
        same_output("sheet1"),
        "Python. A workbook is a zip; this one was not built before.",
    ),
    Program(
        "unzip -t, a table",
        "unzip -v",
        "unzip -t ~/xnat/tables/ALFA/ashs/volumes.xlsx",
        same_output("No errors detected"),
        "The same, and unzip looks for its end where `stat` said it was, at 16 TiB. `head -c1 FILE` first.",
        fails="cannot find",
    ),
    Program(
        "pdfinfo",
        "pdfinfo -v",
        f"pdfinfo {SUBJECT}/RESOURCES/consent/consent_sub001.pdf",
        same_output("Pages"),
    ),
    Program(
        "exiftool",
        "exiftool -ver",
        f"exiftool -T -FileName -PatientID -InstanceNumber {T1}/DICOM | sort",
        same_output("sub001", "slices"),
    ),
]
