"""The output files of the PET and perfusion pipelines, from the numbers of `tracers.py`: folders, names and
syntax of each program.

Used by `pipes.py`. Every function returns the files of one resource: path -> bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from xnatfs.demo.data import tracers as t
from xnatfs.demo.data.mr_outputs import Files, csv, image, picture, pve, records
from xnatfs.demo.data.pipelines import pdf

STANDARD = (91, 109, 91)  # MNI space at 2 mm
REFERENCES = ("cgm", "pons", "wc", "wcbs", "wm")


def uniform(session: str, map: str) -> bytes:
    """A map in standard space with the same value everywhere: 900,000 voxels in 6 kB."""
    return image(
        np.ones(STANDARD, dtype=np.uint8), (2.0, 2.0, 2.0), f"{session} {map}", slope=t.uniform(session, map)
    )


def _regions(session: str, resource: str, analyses: Mapping[str, str]) -> Files:
    files = {}
    for analysis, ending in analyses.items():
        rows = [[name, *row.values()] for name, row in t.regions(session, resource, analysis).items()]
        files[f"native_space/region_analysis/region_analysis{ending}.csv"] = csv(
            ["name", *t.REGION_COLUMNS], rows
        )
    return files


def _asl(session: str, resource: str, analyses: Mapping[str, str], maps: tuple[str, ...]) -> Files:
    files = {path: f"{value}\n".encode() for path, (_, _, value) in t.perfusion(session, resource).items()}
    files |= _regions(session, resource, analyses) | pve(session, resource, "fsl_anat.anat/")
    for map in maps:
        files |= {
            f"{space}_space/{map}.nii.gz": picture(f"{session}/{resource}/{space}/{map}")
            for space in ("native", "struct")
        }
        files[f"std_space/{map}.nii.gz"] = uniform(session, f"{resource}/{map}")
    return dict(sorted(files.items()))


def basil(session: str) -> Files:
    return _asl(session, "BASIL", t.BASIL_REGIONS, ("perfusion_calib",))


def te_asl(session: str) -> Files:
    return _asl(session, "TE_ASL", t.TEASL_REGIONS, ("arrival", "perfusion_calib"))


def asl3d(session: str) -> Files:
    maps = {
        f"{name}.nii.gz": picture(f"{session}/asl3d/{name}")
        for name in ("asl2std", "asl2struct", "masked_asl")
    }
    return {
        **maps,
        "quantification_results.csv": records(t.asl3d(session)),
        **pve(session, "3DASL_QUANTIFICATION", "fsl_anat.anat/"),
    }


def _pet(session: str, tracer: str, references: tuple[str, ...]) -> Files:
    files = {
        f"GLOBAL/wstatic_pet_scaled_{name}.nii.gz": uniform(session, f"{tracer}/{name}")
        for name in references
    }
    return {
        **files,
        "quantification_results.csv": records(t.pet(session, tracer)),
        "static_pet.nii.gz": picture(f"{session}/{tracer}"),
    }


def fdg(session: str) -> Files:
    return _pet(session, "fdg", (*REFERENCES, "vermis"))


def ftm(session: str) -> Files:
    return _pet(session, "ftm", REFERENCES)


def tau(session: str) -> Files:
    harmonized = "rstatic_pet_soc_coregT1_scaled_CerebGry_harmonized.nii.gz"
    return {harmonized: picture(f"{session}/tau"), "tau_quantification_results.csv": records(t.tau(session))}


def centaurz(session: str) -> Files:
    return {
        "centaurz_quantification_results.csv": records(t.centaur(session)),
        "wstatic_pet.nii.gz": picture(f"{session}/centaur"),
    }


def preprocessing(session: str) -> Files:
    return {
        "static_pet.nii.gz": picture(f"{session}/static"),
        "rstatic_pet_coregT1.nii.gz": picture(f"{session}/coreg"),
    }


def session_validator(session: str, name: str, mri: Mapping[str, str] | None) -> Files:
    """PetSessionValidator or TauPetSessionValidator: its test HasUsableT1 names the MR session (None: there
    is none, it failed).
    """
    report: dict[str, object] = {
        "version": "0390c55f",
        "generated": "2024-02-03, 10:21",
        "experiment_id": session,
    }
    report["HasUsableT1"] = {"has_passed": mri is not None, "data": [dict(mri)] if mri else []}
    report |= {
        test: {"has_passed": True, "data": []} for test in ("HasStaticScan", "HasCorrectNumberOfFrames")
    }
    return {
        f"{name}_{session}.json": json.dumps(report, indent=1).encode(),
        f"{name}_{session}.pdf": pdf(f"{name} {session}", f"{session}/{name}"),
    }
