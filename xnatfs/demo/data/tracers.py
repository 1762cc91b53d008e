"""What the PET and perfusion pipelines of project PIPES measured: the one place of truth for their numbers.

Used by `pet_outputs.py`, which writes them into files in each program's syntax, and by tests, which compare
tables with them. As in `measurements.py`: every function takes the accession id of the session, and the text
of a `Decimal` is the text in the file.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from xnatfs.demo.data.derived import NODES, Row
from xnatfs.demo.data.draw import draw

BASIL_MEANS = ("arrival", "perfusion", "perfusion_calib")
TEASL_MEANS = (*BASIL_MEANS, "arrival_var", "perfusion_var", "perfusion_var_calib")
# What oxford_asl calls three of its files where it corrects for partial volumes: bx puts the names right.
MISSPELT = {
    "arrival_wm_mean": "arrival_wm_wm_mean",
    "perfusion_wm_mean": "perfusion_wm_wm_mean",
    "perfusion_calib_wm_mean": "perfusion_wm_calib_wm_mean",
}
HARVARD_OXFORD = (
    "Left Cerebral Cortex",
    "Right Cerebral Cortex",
    "Left Thalamus",
    "Right Thalamus",
    "Left Hippocampus",
    "Right Hippocampus",
    "Frontal Pole",
    "Insular Cortex",
    "Superior Temporal Gyrus, anterior division",
    "Superior Temporal Gyrus, posterior division",
    "Heschl's Gyrus (includes H1 and H2)",
    "Precuneous Cortex",
)
REGION_COLUMNS = ("Nvoxels", "Mean", "Std", "Median", "IQR", "Precision-weighted mean", "I2")
# region_analysis -> the ending of the file's name
BASIL_REGIONS = {"whole_brain": "", "GM": "_gm", "WM": "_wm"}
TEASL_REGIONS = {
    "whole_brain_perfusion": "",
    "GM_perfusion": "_gm",
    "WM_perfusion": "_wm",
    "whole_brain_arrival": "_arrival",
    "GM_arrival": "_arrival_gm",
    "WM_arrival": "_arrival_wm",
}
AAL = (
    "Precentral_L",
    "Precentral_R",
    "Hippocampus_L",
    "Hippocampus_R",
    "Amygdala_L",
    "Amygdala_R",
    "Cuneus_L",
    "Cuneus_R",
    "Vermis_3",
)
HAMMERS = (
    "Hippocampus_l",
    "Hippocampus_r",
    "Amygdala_l",
    "Amygdala_r",
    "Insula_l",
    "Insula_r",
    "Putamen_l",
    "Putamen_r",
)
ATLASES = {"hammers": HAMMERS, "aal": AAL, "aparc+aseg": NODES}
FDG_REFERENCES = ("vermis", "pons")
FTM_REFERENCES = ("whole_cerebellum", "pons")
SMOOTHING = {"original": 0, "harmonized": 3}  # smoothing_type -> kernel
CENTAUR_REGIONS = ("Universal", "MesialTemporal", "MetaTemporal", "TemporoParietal", "Frontal")


def _seconds(name: str) -> bool:
    return name.startswith("arrival")


def perfusion(session: str, resource: str) -> dict[str, tuple[str, bool, Decimal]]:
    """BASIL's or TE_ASL's `native_space/**/*.txt`: path -> (measurement, pvcorr, value)."""
    table = {}
    for name in BASIL_MEANS if resource == "BASIL" else TEASL_MEANS:
        for tissue in ("gm", "wm"):
            for corrected in (False, True):
                measurement = f"{name}_{tissue}_mean"
                low, high = (0.7, 1.9) if _seconds(name) else (15, 70)
                value = draw(f"{session}/{resource}/{measurement}/{corrected}", low, high, 6)
                file = MISSPELT.get(measurement, measurement) if corrected else measurement
                table[f"native_space/{'pvcorr/' if corrected else ''}{file}.txt"] = (
                    measurement,
                    corrected,
                    value,
                )
    return dict(sorted(table.items()))


def regions(session: str, resource: str, analysis: str) -> dict[str, dict[str, Decimal]]:
    """BASIL's or TE_ASL's region analysis (a key of `BASIL_REGIONS`, `TEASL_REGIONS`): region -> column ->
    value.
    """
    table = {}
    for name in HARVARD_OXFORD:
        key = f"{session}/{resource}/{analysis}/{name}"
        low, high = (0.7, 1.9) if "arrival" in analysis else (15, 70)
        row = {"Nvoxels": draw(f"{key}/Nvoxels", 20, 9000, 0)}
        row |= {
            column: draw(f"{key}/{column}", low, high, 12)
            for column in ("Mean", "Median", "Precision-weighted mean")
        }
        row |= {
            "Std": draw(f"{key}/Std", 0.1, 9, 12),
            "IQR": draw(f"{key}/IQR", 0.1, 12, 12),
            "I2": draw(f"{key}/I2", 0, 100, 10),
        }
        table[name] = {column: row[column] for column in REGION_COLUMNS}
    return table


def uniform(session: str, map: str) -> float:
    """The value of a map in standard space, which is the same everywhere: so any mask or atlas has this
    mean.
    """
    return float(
        np.float32(
            draw(f"{session}/{map}", 20, 60, 4)
            if "perfusion" in map
            else draw(f"{session}/{map}", 0.8, 1.6, 4)
        )
    )


def asl3d(session: str) -> list[Row]:
    """3DASL_QUANTIFICATION's `quantification_results.csv`."""
    rows: list[Row] = []
    for atlas, names in (("global", ("GM", "WM", "whole_brain")), ("aal2", AAL)):
        for region in names:
            key = f"{session}/asl3d/{atlas}/{region}"
            low, high = {"GM": (45, 60), "WM": (15, 25)}.get(region, (25, 50))
            rows.append(
                {
                    "atlas": atlas,
                    "region": region,
                    "mean": draw(f"{key}/mean", low, high, 14),
                    "std": draw(f"{key}/std", 2, 15, 14),
                    "median": draw(f"{key}/median", low, high, 14),
                    "nvoxels": draw(f"{key}/nvoxels", 100, 9000, 0),
                }
            )
    return rows


def pet(session: str, tracer: str) -> list[Row]:
    """`quantification_results.csv` of FDG_QUANTIFICATION2 (tracer `fdg`) or FTM_QUANTIFICATION2 (`ftm`)."""
    rows: list[Row] = []

    def add(
        region: str, atlas: str, reference: str, measurement: str, optimized: bool, low: float, high: float
    ) -> None:
        key = f"{session}/{tracer}/{atlas}/{region}/{reference}/{measurement}/{optimized}"
        value, deviation = draw(key, low, high, 15), draw(f"{key}/std", 0.01, 0.4, 15)
        nvoxels = draw(f"{session}/{tracer}/{atlas}/{region}/nvoxels", 30, 9000, 0)
        rows.append(
            {
                "region": region,
                "atlas": atlas,
                "reference_region": reference,
                "measurement": measurement,
                "optimized_pet": str(optimized),
                "value": value,
                "std": deviation,
                "nvoxels": nvoxels,
            }
        )

    for optimized in (False, True):
        for reference in FDG_REFERENCES if tracer == "fdg" else FTM_REFERENCES:
            if tracer == "fdg":
                add("landau_Composite", "", reference, "suvr", optimized, 1.0, 1.5)
            else:
                add("cortex", "", reference, "suvr", optimized, 0.9, 2.2)
                add("cortex", "", reference, "centiloid", optimized, -15, 110)
            for atlas, names in ATLASES.items():
                for region in names:
                    add(region, atlas, reference, "suvr", optimized, 0.6, 1.9)
    return rows


def _one(rows: list[Row], **wanted: str) -> Decimal:
    (row,) = (row for row in rows if all(row[name] == value for name, value in wanted.items()))
    return Decimal(row["value"])


def landau(session: str) -> Decimal:
    """What `bx fdg landau` tells: not optimized, reference vermis."""
    return _one(
        pet(session, "fdg"), region="landau_Composite", reference_region="vermis", optimized_pet="False"
    )


def centiloids(session: str) -> Decimal:
    """What `bx ftm centiloids` tells: not optimized, reference whole cerebellum."""
    return _one(
        pet(session, "ftm"),
        region="cortex",
        reference_region="whole_cerebellum",
        measurement="centiloid",
        optimized_pet="False",
    )


def tau(session: str) -> list[Row]:
    """`tau_quantification_results.csv`."""
    rows: list[Row] = []
    for smoothing, kernel in SMOOTHING.items():
        for measurement in ("suv", "suvr"):
            for atlas, names in ATLASES.items():
                for region in names:
                    key = f"{session}/tau/{atlas}/{region}"
                    rows.append(
                        {
                            "region": region,
                            "atlas": atlas,
                            "reference_region": "CerebGry" if measurement == "suvr" else "",
                            "measurement": measurement,
                            "smoothing_type": smoothing,
                            "kernel": kernel,
                            "value": draw(f"{key}/{smoothing}/{measurement}", 0.6, 2.4, 15),
                            "nvoxels": draw(f"{key}/nvoxels", 30, 9000, 0),
                        }
                    )
    return rows


def centaur(session: str) -> list[Row]:
    """`centaurz_quantification_results.csv`."""
    rows: list[Row] = []
    for smoothing, kernel in SMOOTHING.items():
        for region in CENTAUR_REGIONS:
            for measurement, low, high in (("suvr", 0.8, 2.2), ("suvr_spm8", 0.8, 2.2), ("centaurz", -2, 12)):
                value = draw(f"{session}/centaur/{region}/{smoothing}/{measurement}", low, high, 15)
                rows.append(
                    {
                        "region": region,
                        "measurement": measurement,
                        "smoothing_type": smoothing,
                        "kernel": kernel,
                        "value": value,
                    }
                )
    return rows


def centaurz(session: str) -> Decimal:
    """What `bx centaur centaurz` tells: the universal region, harmonized."""
    return _one(centaur(session), region="Universal", measurement="centaurz", smoothing_type="harmonized")
