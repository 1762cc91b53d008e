"""The output files of the further MR pipelines, from the numbers of `derived.py`: folders, names and syntax
of each program.

Used by `pipes.py`. Every function returns the files of one resource: path -> bytes. Images are small, and
plain shapes inside.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnatfs.demo.data import derived as d
from xnatfs.demo.data import freesurfer, images, pipelines
from xnatfs.demo.data.draw import gzip_runs, noise
from xnatfs.demo.data.workbook import xlsx

Files = dict[str, bytes]


def csv(header: Sequence[str], rows: Iterable[Sequence[object]], separator: str = ",") -> bytes:
    """A table as text; cells with a separator or quotes are quoted."""

    def cell(value: object) -> str:
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if separator in text or '"' in text else text

    return "".join(separator.join(cell(value) for value in row) + "\n" for row in (header, *rows)).encode()


def records(rows: Sequence[Mapping[str, object]], **first: object) -> bytes:
    """Rows with the same columns as CSV, after columns that are the same in all."""
    return csv([*first, *rows[0]], [[*first.values(), *row.values()] for row in rows])


def image(
    data: NDArray[Any], spacing: tuple[float, float, float], description: str, slope: float = 1.0
) -> bytes:
    """A `.nii.gz` of masks, labels or levels."""
    return gzip_runs(
        images.nifti(data, images.affine_of(data.shape[:3], spacing), description[:79], slope=slope, gz=False)
    )


def picture(key: str, size: int = 16) -> bytes:
    """A small image of a head, for the files nobody measures."""
    shape = (size, size, size // 2)
    return images.nifti(images.head(key, shape), images.affine_of(shape, (14.0, 14.0, 28.0)), key[:79])


def _tissue(key: str, names: Mapping[str, str]) -> Files:
    """Tissue maps: `names` says which paths are c1, c2 and c3."""
    maps = pipelines.tissues(key)
    affine = pipelines.tissue_affine()
    return {
        path: gzip_runs(images.nifti(maps[name], affine, f"{key} {name}"[:79], slope=0.5, gz=False))
        for path, name in names.items()
    }


def freesurfer6_hires(session: str, subject: str) -> Files:
    return freesurfer.subject_directory(d.hires(session), "6", subject)


def freesurfer7(session: str, subject: str) -> Files:
    """As in ALFA, and the thickness of two small surfaces of 200 vertices."""
    files = freesurfer.subject_directory(session, "7", subject)
    for side in ("lh", "rh"):
        thickness = (
            np.frombuffer(noise(f"{session}/{side}.thickness", 400), dtype=">u2").astype(">f4") / 65536 * 2
            + 1.5
        )
        files[f"{subject}/surf/{side}.thickness"] = (
            b"\xff\xff\xff" + struct.pack(">iii", 200, 396, 1) + thickness.astype(">f4").tobytes()
        )
    return files


def dickerson(session: str) -> Files:
    """Labels of the signatures on the surfaces of FREESURFER7."""
    files = {}
    for signature, names in (("ad", ("itg", "mtl", "sfg")), ("aging", ("calcarine", "cuneus", "smg"))):
        for number, name in enumerate(names):
            for side in ("lh", "rh"):
                vertices = range(number * 40, number * 40 + 30)
                lines = [f"{v}  {v / 10:.3f}  {-v / 20:.3f}  {v / 30:.3f} 0.0000000000" for v in vertices]
                head = f"#!ascii label  , from subject {session} vox2ras=TkReg\n{len(lines)}\n"
                files[f"{signature}/{side}.{name}.label"] = (head + "\n".join(lines) + "\n").encode()
    return files


def cat12(session: str, stem: str) -> Files:
    paths = {f"mri/p{n}{stem}.nii.gz": f"c{n}" for n in (1, 2, 3)}
    files = _tissue(
        f"{session}/CAT12_SEGMENT", paths | {f"mri/rp{n}{stem}_affine.nii.gz": f"c{n}" for n in (1, 2)}
    )
    return files | {
        f"report/catlog_{stem}.txt": b"CAT12.8 (r1871): segmentation finished\n",
        f"mri/m{stem}.nii.gz": picture(f"{session}/cat"),
    }


def pve(session: str, resource: str, folder: str) -> Files:
    """The tissue maps of FSL FAST, below `folder`."""
    return _tissue(
        f"{session}/{resource}",
        {f"{folder}T1_fast_pve_{n}.nii.gz": name for n, name in enumerate(("c3", "c1", "c2"))},
    )


def fsl_anat(session: str) -> Files:
    labels = np.zeros(24**3, dtype=np.uint8)
    start = 0
    for name, count in d.subcortical_voxels(session).items():
        labels[start : start + count] = d.SUBCORTICAL[name][0]
        start += count
    return {
        **pve(session, "FSL_ANAT", "fsl.anat/"),
        "fsl.anat/T1_biascorr.nii.gz": picture(f"{session}/biascorr"),
        "fsl.anat/T1_subcort_seg.nii.gz": image(
            labels.reshape(24, 24, 24), (2.0, 2.0, 2.0), f"{session} FIRST"
        ),
        "fsl.anat/log.txt": b"fsl_anat: finished\n",
    }


def bamos(session: str) -> Files:
    """A block of 4 x 4 x 8 voxels for every layer (first axis) and lobe (second axis); a lesion is a column
    in its block.
    """
    shape = (4 * d.LAYERS, 4 * len(d.LOBES), 8)
    lesion, label, layers, lobes = (np.zeros(shape, dtype=np.uint8) for _ in range(4))
    number = 0
    for (layer, lobe), some in d.lesions(session).items():
        x, y = 4 * layer, 4 * lobe
        layers[x : x + 4, y : y + 4], lobes[x : x + 4, y : y + 4] = layer, lobe
        for place, quarters in enumerate(some):
            number += 1
            lesion[x + 1, y + place, : len(quarters)] = quarters
            label[x + 1, y + place, : len(quarters)] = number
    spacing = (1.0, 1.0, float(d.LESION_VOXEL))
    return {
        f"Connect_WS3WT3WC1Lesion_{session}_corr.nii.gz": image(label, spacing, f"{session} lesions"),
        f"CorrectLesion_{session}.nii.gz": image(lesion, spacing, f"{session} lesions", slope=0.25),
        f"Layers_{session}.nii.gz": image(layers, spacing, f"{session} layers"),
        f"Lobes_{session}.nii.gz": image(lobes, spacing, f"{session} lobes"),
    }


def bamos_arterial(session: str) -> Files:
    return {
        "bamos_arterial_stats.csv": records(d.bamos_arterial(session)),
        f"Arterial_{session}.nii.gz": picture(f"{session}/arterial"),
    }


def alps(session: str) -> Files:
    same = {"id": f"{session}_dwi", "scanner": "SIEMENS"}
    return {
        "alps.stat/alps.csv": records([d.alps(session)], **same),
        "alps.stat/fa+md_alps.csv": records(d.alps_diffusion(session), **same),
        "dti_FA.nii.gz": picture(f"{session}/alps/FA"),
        "dxx_in_JHU-FA.nii.gz": picture(f"{session}/alps/dxx"),
    }


def donsurf(session: str, subject: str) -> Files:
    return {
        f"{metric}/stats/{side}.aparc.stats": freesurfer.aparc_text(
            d.donsurf_header(session, side), d.donsurf(session, metric, side), "6", side, subject
        )
        for metric in ("GM-MD", "SWM-MD")
        for side in ("lh", "rh")
    }


def qsmxt(session: str, subject: str, label: str) -> Files:
    name = f"sub-{subject}_ses-{label}"
    table = d.qsmxt(session)
    header = ["subject", "roi", *next(iter(table.values()))]
    return {
        f"qsm/{name}_part-phase_MEGRE_scaled_qsm-filled_000_average.nii.gz": picture(f"{session}/qsm"),
        f"region_analysis/{name}_qsm_stats.csv": csv(
            header, [[name, roi, *row.values()] for roi, row in table.items()]
        ),
        "references.txt": b"QSMxT 1.3.3\n",
    }


def pyment(session: str) -> Files:
    return {
        f"{session}_prediction.csv": records([d.pyment(session)], id=session),
        f"{session}_mni_dof_6.nii.gz": picture(f"{session}/pyment"),
    }


def lcmodel(session: str, subject: str) -> Files:
    def workbook(rows: list[d.Row]) -> bytes:
        return xlsx(["id", "subject", *rows[0]], [[session, subject, *row.values()] for row in rows])

    return {
        f"{session}_lcmodel.xlsx": workbook(d.lcmodel(session)),
        f"{session}_mrs_tissue_corr.xlsx": workbook(d.lcmodel_correction(session)),
        "PCC/PCC.table": b" $$CONC see the workbook\n",
    }


def mrtrix3(session: str) -> Files:
    rows = d.connectome(session)
    return {
        "connectome.csv": csv([str(v) for v in rows[0]], rows[1:]),
        "nodes.nii.gz": picture(f"{session}/nodes"),
    }


def xcp_d(session: str, subject: str, label: str) -> Files:
    name = f"sub-{subject}_ses-{label}_task-rest_space-MNI152NLin6Asym_atlas-DK"
    stem = f"xcp_d/sub-{subject}/ses-{label}/func/{name}"
    matrix = [[node, *row] for node, row in zip(d.NODES, d.correlations(session), strict=True)]
    return {
        f"{stem}_measure-pearsoncorrelation_conmat.tsv": csv(["Node", *d.NODES], matrix, "\t"),
        f"{stem}_timeseries.tsv": csv(d.NODES, d.timeseries(session), "\t"),
    }


def dtifit(session: str, stem: str) -> Files:
    return {
        f"{stem}_{name}.nii.gz": picture(f"{session}/{stem}/{name}")
        for name in ("FA", "L1", "L2", "L3", "MD", "RD", "S0", "V1")
    }


def dartel(session: str, stem: str) -> Files:
    return {
        f"smwc1{stem}.nii.gz": picture(f"{session}/smwc1"),
        f"u_rc1{stem}_Template.nii.gz": picture(f"{session}/u_rc1"),
    }


def mri_reface(session: str) -> Files:
    files = {f"{name}_deFaced.nii.gz": picture(f"{session}/reface/{name}") for name in ("FLAIR", "T1", "T2")}
    return files | {f"{name}_deFaced_QC.txt": b"no face left\n" for name in ("T1",)}


def fmriprep(session: str, subject: str, label: str) -> Files:
    name = f"sub-{subject}_ses-{label}"
    folder = f"fmriprep/sub-{subject}/ses-{label}"
    return {
        "fmriprep/dataset_description.json": images.sidecar(
            Name="fMRIPrep", BIDSVersion="1.4.0", DatasetType="derivative"
        ),
        f"fmriprep/sub-{subject}.html": f"<html><body>{name}</body></html>\n".encode(),
        f"{folder}/func/{name}_task-rest_desc-confounds_timeseries.tsv": (
            b"csf\tframewise_displacement\n0.5\tn/a\n0.4\t0.123\n"
        ),
        f"{folder}/func/{name}_task-rest_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz": picture(
            f"{session}/bold"
        ),
    }


def ants(session: str) -> Files:
    return {
        "antsBrainSegmentation.nii.gz": picture(f"{session}/ants"),
        "antsCorticalThickness.nii.gz": picture(f"{session}/antsct"),
    }


def spm12(key: str, stem: str) -> Files:
    """The tissue maps of SPM12, and those that DARTEL imports."""
    return _tissue(
        key,
        {
            f"{prefix}c{n}{stem}.nii.gz": f"c{n}"
            for prefix in ("", "r")
            for n in (1, 2, 3)
            if (prefix, n) != ("r", 3)
        },
    )
