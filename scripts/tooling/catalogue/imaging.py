"""Programs that read images."""

from __future__ import annotations

import json

from tooling.catalogue.copying import SUBJECT, T1
from tooling.checks import equal, prints, same_made, same_output
from tooling.program import Attempt, Program, WrongError, debian, package, python

NIFTI = f"{T1}/NIFTI/sub001_MR1_T1_ALFA1.nii.gz"
PLAIN = f"{T1}/NIFTI_PLAIN/sub001_MR1_T1_ALFA1.nii"
DICOM = f"{T1}/DICOM"
BIDS = "~/xnat/views/ALFA/bids"
SHAPE = r"\(112, 112, 40\)"


def _valid(_: Program, attempt: Attempt) -> str:
    report = json.loads((attempt.work / "report.json").read_text())
    equal("errors", [one["code"] for one in report["issues"]["issues"] if one["severity"] == "error"], [])
    if (files := report["summary"]["totalFiles"]) < 50:
        raise WrongError(f"it looked at {files} files only")
    return f"no error in {files} files"


IMAGING = [
    Program(
        "nibabel",
        package("nibabel"),
        python(
            "import hashlib, nibabel, sys",
            "i = nibabel.load(sys.argv[1])",
            "print(i.shape, hashlib.md5(i.get_fdata().tobytes()).hexdigest())",
            on=NIFTI,
        ),
        same_output(SHAPE),
    ),
    Program(
        "nibabel, mapped",
        package("nibabel"),
        python(
            "import nibabel, sys",
            'i = nibabel.load(sys.argv[1], mmap="r")',
            "print(i.shape, i.dataobj[5, 6, 7], i.dataobj[..., 20].sum())",
            on=PLAIN,
        ),
        same_output(SHAPE),
        "A voxel and a slice.",
    ),
    Program("nib-ls", package("nibabel"), f"nib-ls {T1}/NIFTI/*.nii.gz {PLAIN}", same_output("112")),
    Program(
        "fslpy",
        package("fslpy"),
        python(
            "import sys",
            "from fsl.data.image import Image",
            "i = Image(sys.argv[1])",
            "print(i.shape, i[:].sum())",
            on=NIFTI.removesuffix(".nii.gz"),
        ),
        same_output(SHAPE),
        "The library of FSLeyes; it finds an image without its ending, as FSL's programs do.",
    ),
    Program(
        "nilearn",
        package("nilearn"),
        python(
            "import sys",
            "from nilearn.image import mean_img",
            "i = mean_img(sys.argv[1], copy_header=True)",
            "print(i.shape, i.get_fdata().sum())",
            on=f"{SUBJECT}/sub001_MR1/SCANS/5-REST/NIFTI/*.nii.gz",
            options="-W ignore",
        ),
        same_output(r"\(32, 32, 12\)"),
    ),
    Program(
        "SimpleITK",
        package("SimpleITK"),
        python(
            "import SimpleITK as s, sys",
            "r = s.ImageSeriesReader()",
            "r.SetFileNames(r.GetGDCMSeriesFileNames(sys.argv[1]))",
            "i = r.Execute()",
            "print(i.GetSize(), i.GetSpacing(), s.Hash(i))",
            on=DICOM,
        ),
        same_output(SHAPE),
        "ITK, which 3D Slicer and ITK-SNAP read with, too.",
    ),
    Program(
        "pydicom",
        package("pydicom"),
        python(
            "import hashlib, pydicom, sys",
            "pixels = [pydicom.dcmread(f).PixelData for f in sys.argv[1:]]",
            'print(*(hashlib.md5(one).hexdigest() for one in pixels), sep="\\n")',
            on=f"{DICOM}/*",
        ),
        same_output(what="slices"),
    ),
    Program("dcm2niix", "dcm2niix --version", f"dcm2niix -z n -f t1 -o . {DICOM}", same_made("t1.*")),
    Program(
        "dcmdump",
        "dcmdump --version",
        f"dcmdump +P InstanceNumber +P PatientID {DICOM}/*",
        same_output("sub001"),
        "DCMTK",
    ),
    Program("dcmftest", "dcmftest --version", f"dcmftest {DICOM}/*", same_output("yes:", "slices"), "DCMTK"),
    Program(
        "gdcminfo",
        "gdcminfo --version",
        f"for f in {DICOM}/*; do gdcminfo $f; done",
        same_output("Dimensions"),
        "GDCM",
    ),
    Program(
        "dcdump",
        debian("dicom3tools"),
        f"for f in {DICOM}/*; do dcdump $f 2>&1 | grep -a 0x0020,0x0013; done",
        same_output("0x0020", "slices"),
        "dicom3tools",
    ),
    Program(
        "mrinfo",
        "mrinfo --version",
        f"mrinfo -quiet -size -spacing -transform {NIFTI} {PLAIN}",
        same_output("112 112 40"),
        "MRtrix3",
    ),
    Program(
        "mrconvert",
        "mrconvert --version",
        f"mrconvert -quiet {DICOM} t1.nii",
        same_made("t1.nii"),
        "MRtrix3, from DICOM.",
    ),
    Program(
        "nifti_tool",
        "nifti_tool -ver",
        f"nifti_tool -disp_hdr -field dim -field pixdim -infiles {NIFTI} {PLAIN}",
        same_output("112"),
        "NIfTI's reference library.",
    ),
    Program(
        "nii2mnc",
        "mincinfo -version",
        f"nii2mnc -quiet {PLAIN} t1.mnc && mincstats -quiet -sum -mean t1.mnc",
        same_output(r"\d"),
        "MINC tools",
    ),
    Program(
        "Octave",
        "octave --version",
        f'octave --no-gui --quiet --eval \'f = fopen("{PLAIN}", "r"); fseek(f, 352); '
        'd = fread(f, Inf, "int16"); printf("%d %d\\n", numel(d), sum(d))\'',
        same_output("^501760 "),
        "`fopen` and `fread`, as MATLAB has them.",
    ),
    Program(
        "R readBin",
        "R --version",
        'Rscript -e \'f <- file(commandArgs(TRUE), "rb"); d <- readBin(f, "raw", 1e8); '
        f'cat(length(d), sum(as.integer(d)), "\\n")\' {PLAIN}',
        same_output("^1003872 "),
    ),
    Program(
        "pybids",
        package("pybids"),
        python(
            "import sys",
            "from bids import BIDSLayout",
            "b = BIDSLayout(sys.argv[1])",
            "print(*b.get_subjects())",
            'print(len(b.get(suffix="bold", extension=".nii.gz")), "of", *b.get_tasks())',
            on=BIDS,
            options="-W ignore",
        ),
        prints("007 sub001 sub002 sub003 sub004 sub005", "9 of rest"),
    ),
    Program(
        "bids-validator",
        package("bids-validator-deno"),
        f"bids-validator-deno --format json {BIDS} > report.json",
        _valid,
    ),
]
