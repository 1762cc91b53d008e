"""FreeSurfer's output as text, in the exact syntax of versions 6.0 and 7.x, from the numbers of
`measurements.py`.

Used by the `lab` data set for the resources FREESURFER6, FREESURFER7 and FREESURFER7_EXTRAS.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from xnatfs.demo.data import measurements as m
from xnatfs.demo.data.draw import gzip_stored, noise
from xnatfs.demo.data.images import MGHImage

_LONG = {  # name -> (first field, long name) of a `# Measure` line
    "BrainSegVol": ("BrainSeg", "Brain Segmentation Volume"),
    "BrainSegVolNotVent": ("BrainSegNotVent", "Brain Segmentation Volume Without Ventricles"),
    "BrainSegVolNotVentSurf": (
        "BrainSegNotVentSurf",
        "Brain Segmentation Volume Without Ventricles from Surf",
    ),
    "VentricleChoroidVol": ("VentricleChoroidVol", "Volume of ventricles and choroid plexus"),
    "lhCortexVol": ("lhCortex", "Left hemisphere cortical gray matter volume"),
    "rhCortexVol": ("rhCortex", "Right hemisphere cortical gray matter volume"),
    "CortexVol": ("Cortex", "Total cortical gray matter volume"),
    "lhCerebralWhiteMatterVol": ("lhCerebralWhiteMatter", "Left hemisphere cerebral white matter volume"),
    "rhCerebralWhiteMatterVol": ("rhCerebralWhiteMatter", "Right hemisphere cerebral white matter volume"),
    "CerebralWhiteMatterVol": ("CerebralWhiteMatter", "Total cerebral white matter volume"),
    "SubCortGrayVol": ("SubCortGray", "Subcortical gray matter volume"),
    "TotalGrayVol": ("TotalGray", "Total gray matter volume"),
    "SupraTentorialVol": ("SupraTentorial", "Supratentorial volume"),
    "SupraTentorialVolNotVent": ("SupraTentorialNotVent", "Supratentorial volume"),
    "SupraTentorialVolNotVentVox": ("SupraTentorialNotVentVox", "Supratentorial volume voxel count"),
    "MaskVol": ("Mask", "Mask Volume"),
    "BrainSegVol-to-eTIV": ("BrainSegVol-to-eTIV", "Ratio of BrainSegVol to eTIV"),
    "MaskVol-to-eTIV": ("MaskVol-to-eTIV", "Ratio of MaskVol to eTIV"),
    "lhSurfaceHoles": ("lhSurfaceHoles", "Number of defect holes in lh surfaces prior to fixing"),
    "rhSurfaceHoles": ("rhSurfaceHoles", "Number of defect holes in rh surfaces prior to fixing"),
    "SurfaceHoles": ("SurfaceHoles", "Total number of defect holes in surfaces prior to fixing"),
    "lhCorticalWhiteMatterVol": ("lhCorticalWhiteMatter", "Left hemisphere cortical white matter volume"),
    "rhCorticalWhiteMatterVol": ("rhCorticalWhiteMatter", "Right hemisphere cortical white matter volume"),
    "CorticalWhiteMatterVol": ("CorticalWhiteMatter", "Total cortical white matter volume"),
    "ICV": ("IntraCranialVol", "Intracranial Volume"),
    "eTIV": ("EstimatedTotalIntraCranialVol", "Estimated Total Intracranial Volume"),
    "NumVert": ("Cortex", "Number of Vertices"),
    "WhiteSurfArea": ("Cortex", "White Surface Total Area"),
    "MeanThickness": ("Cortex", "Mean Thickness"),
}
_ASEG_TABLE = (
    ("Index", "Index", "NA"),
    ("SegId", "Segmentation Id", "NA"),
    ("NVoxels", "Number of Voxels", "unitless"),
    ("Volume_mm3", "Volume", "mm^3"),
    ("StructName", "Structure Name", "NA"),
    ("normMean", "Intensity normMean", "MR"),
    ("normStdDev", "Itensity normStdDev", "MR"),
    ("normMin", "Intensity normMin", "MR"),
    ("normMax", "Intensity normMax", "MR"),
    ("normRange", "Intensity normRange", "MR"),
)
_APARC_TABLE = (
    ("StructName", "Structure Name", "NA"),
    ("NumVert", "Number of Vertices", "unitless"),
    ("SurfArea", "Surface Area", "mm^2"),
    ("GrayVol", "Gray Matter Volume", "mm^3"),
    ("ThickAvg", "Average Thickness", "mm"),
    ("ThickStd", "Thickness StdDev", "mm"),
    ("MeanCurv", "Integrated Rectified Mean Curvature", "mm^-1"),
    ("GausCurv", "Integrated Rectified Gaussian Curvature", "mm^-2"),
    ("FoldInd", "Folding Index", "unitless"),
    ("CurvInd", "Intrinsic Curvature Index", "unitless"),
)
_CVS = {
    "5": "$Id: mri_segstats.c,v 1.75.2.4 2011/03/16 21:23:49 nicks Exp $",
    "6": "$Id: mri_segstats.c,v 1.121 2016/05/31 17:27:11 greve Exp $",
    "7": "7.1.1",
}


def _measures(values: dict[str, tuple[Decimal, str]]) -> list[str]:
    return [
        f"# Measure {_LONG[name][0]}, {name}, {_LONG[name][1]}, {value}, {unit}"
        for name, (value, unit) in values.items()
    ]


def _columns(table: tuple[tuple[str, str, str], ...]) -> list[str]:
    lines = []
    for number, (header, field, units) in enumerate(table, 1):
        lines += [
            f"# TableCol {number:2d} ColHeader {header} ",
            f"# TableCol {number:2d} FieldName {field}",
            f"# TableCol {number:2d} Units     {units}",
        ]
    return lines


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


Header = dict[str, tuple[Decimal, str]]  # measure -> (value, unit)


def aseg_stats(session: str, version: str, subject: str) -> bytes:
    """`stats/aseg.stats` of the run called `subject`."""
    return aseg_text(m.aseg_header(session, version), m.aseg(session, version), version, subject)


def aseg_text(header: Header, table: dict[str, m.Rows], version: str, subject: str) -> bytes:
    """A file `aseg.stats` with these numbers."""
    lines = [
        "# Title Segmentation Statistics ",
        "# ",
        "# generating_program mri_segstats",
        f"# cvs_version {_CVS[version]}",
        f"# cmdline mri_segstats --seg mri/aseg.mgz --sum stats/aseg.stats --pv mri/norm.mgz --empty "
        f"--subject {subject} ",
        "# sysname  Linux",
        "# hostname node01",
        "# machine  x86_64",
        "# user     xnat",
        "# anatomy_type volume",
        "# ",
        "# SUBJECTS_DIR /data/subjects",
        f"# subjectname {subject}",
    ]
    if version == "7":
        lines.append("# BrainVolStatsFixed-NotNeeded because voxelvolume=1mm3")
    lines += _measures(header)
    lines += ["# SegVolFile mri/aseg.mgz ", "# ExcludeSegId 0 2 3 41 42 ", "# VoxelVolume_mm3 1 "]
    lines += [*_columns(_ASEG_TABLE), f"# NRows {len(table)} ", "# NTableCols 10 "]
    lines.append("# ColHeaders  " + " ".join(column for column, _, _ in _ASEG_TABLE) + "  ")
    for name, row in table.items():
        numbers = " ".join(f"{row[column]:>10}" for column in m.ASEG_COLUMNS[4:])
        lines.append(
            f"{row['Index']:>3} {row['SegId']:>3}  {row['NVoxels']:>8}   {row['Volume_mm3']:>8}  "
            f"{name:<33} {numbers} "
        )
    return _text(lines)


def aparc_stats(session: str, version: str, side: str, subject: str, atlas: str = "aparc") -> bytes:
    """`stats/<side>.<atlas>.stats`, side lh or rh, atlas aparc or aparc.a2009s."""
    header, table = m.aparc_header(session, version, side), m.aparc(session, version, side, atlas)
    return aparc_text(header, table, version, side, subject, atlas)


def aparc_text(
    header: Header, table: dict[str, m.Rows], version: str, side: str, subject: str, atlas: str = "aparc"
) -> bytes:
    """A file `<side>.<atlas>.stats` with these numbers."""
    lines = [
        "# Table of FreeSurfer cortical parcellation anatomical statistics ",
        "# ",
        "# generating_program mris_anatomical_stats",
        f"# cvs_version {_CVS[version].replace('mri_segstats.c,v 1.121', 'mris_anatomical_stats.c,v 1.79')}",
        f"# cmdline mris_anatomical_stats -mgz -f ../stats/{side}.{atlas}.stats -a "
        f"../label/{side}.{atlas}.annot {subject} {side} white ",
        "# sysname  Linux",
        "# hostname node01",
        "# machine  x86_64",
        "# user     xnat",
        "# ",
        "# SUBJECTS_DIR /data/subjects",
        "# anatomy_type surface",
        f"# subjectname {subject}",
        f"# hemi {side}",
        f"# AnnotationFile ../label/{side}.{atlas}.annot",
    ]
    measures = _measures(header)
    if version == "6":  # FreeSurfer 6 writes this line without its second comma
        measures = [line.replace("CortexVol, Total", "CortexVol Total") for line in measures]
    else:
        measures.insert(3, "# BrainVolStatsFixed-NotNeeded because voxelvolume=1mm3")
    lines += [*measures, "# NTableCols 10", *_columns(_APARC_TABLE)]
    lines.append("# ColHeaders " + " ".join(column for column, _, _ in _APARC_TABLE))
    for region, row in table.items():
        widths = zip(m.APARC_COLUMNS, (5, 6, 6, 6, 5, 9, 9, 8, 7), strict=True)
        lines.append(f"{region:<40}" + " ".join(f"{row[column]:>{width}}" for column, width in widths))
    return _text(lines)


def volumes_text(values: dict[str, Decimal], prefix: str = "") -> bytes:
    """The `name value` lines of hippoSfVolumes, amygNucVolumes and brainstemSsVolumes."""
    return _text([f"{prefix}{name} {value}" for name, value in values.items()])


def thalamus_text(session: str) -> bytes:
    """`ThalamicNuclei.v12.T1.volumes.txt`."""
    return volumes_text(m.thalamus(session, "left"), "Left-") + volumes_text(
        m.thalamus(session, "right"), "Right-"
    )


def hypothalamus_csv(session: str, subject: str) -> bytes:
    """`hypothalamic_subunits_volumes.v1.csv`: one header line, one line of values."""
    header, values = ["subject"], [subject]
    for side in ("left", "right"):
        for name, value in m.hypothalamus(session, side).items():
            header.append(f"whole {side}" if name == "whole" else f"{side} {name}")
            values.append(str(value))
    return _text([",".join(header), ",".join(values)])


def _mgz(key: str) -> bytes:
    """A small volume in FreeSurfer's own image format."""
    voxels = np.frombuffer(noise(key, 16**3), dtype=np.uint8).reshape(16, 16, 16)
    image: bytes = MGHImage(voxels, np.diag([16.0, 16.0, 16.0, 1.0])).to_bytes()
    return gzip_stored(image)


def subject_directory(session: str, version: str, subject: str) -> dict[str, bytes]:
    """A FreeSurfer subject directory called `subject`, as far as people look into it: path -> bytes."""
    key = f"{session}/{version}"
    files = {
        "mri/T1.mgz": _mgz(f"{key}/T1.mgz"),
        "mri/aseg.mgz": _mgz(f"{key}/aseg.mgz"),
        "mri/orig/001.mgz": _mgz(f"{key}/001.mgz"),
        "scripts/recon-all.log": (
            f"recon-all -s {subject} -all\nrecon-all -s {subject} finished without error\n"
        ).encode(),
        "scripts/recon-all.done": b"",
        "stats/aseg.stats": aseg_stats(session, version, subject),
    }
    for side in ("lh", "rh"):
        files[f"stats/{side}.aparc.stats"] = aparc_stats(session, version, side, subject)
        files[f"stats/{side}.aparc.a2009s.stats"] = aparc_stats(
            session, version, side, subject, "aparc.a2009s"
        )
        hippo = "v10" if version == "6" else "v21"
        files[f"mri/{side}.hippoSfVolumes-T1.{hippo}.txt"] = volumes_text(m.hippocampus(session, hippo, side))
        if version == "7":
            files[f"mri/{side}.amygNucVolumes-T1.v21.txt"] = volumes_text(m.amygdala(session, side))
    return {f"{subject}/{path}": files[path] for path in sorted(files)}


def extras(session: str, subject: str) -> dict[str, bytes]:
    """The files of FREESURFER7_EXTRAS: path -> bytes."""
    return {
        f"{subject}/mri/ThalamicNuclei.v12.T1.volumes.txt": thalamus_text(session),
        f"{subject}/mri/brainstemSsVolumes.v12.txt": volumes_text(m.brainstem(session)),
        f"{subject}/mri/hypothalamic_subunits_volumes.v1.csv": hypothalamus_csv(session, subject),
    }
